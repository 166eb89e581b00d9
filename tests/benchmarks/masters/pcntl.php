<?php
// PHP's pcntl: the same loop as bare.py.

declare(strict_types=1);

$pids = [];
$socket = socket_create(AF_UNIX, SOCK_DGRAM, 0);

function spawn(): void
{
    global $pids, $socket;
    $pid = pcntl_fork();
    if ($pid === 0) {
        pcntl_signal(SIGTERM, SIG_DFL);
        $report = pack('qqq', getmypid(), hrtime(true), -1);
        socket_sendto($socket, $report, strlen($report), 0, getenv('BENCHMARK_ARENA'));
        sleep(10000);
        exit(0);
    }
    $pids[$pid] = true;
}

function stop(): void
{
    global $pids;
    foreach (array_keys($pids) as $pid) {
        posix_kill($pid, SIGTERM);
    }
    foreach (array_keys($pids) as $pid) {
        pcntl_waitpid($pid, $status);
    }
    exit(0);
}

pcntl_async_signals(true);
// A wait that were resumed after the signal would keep PHP from its handler.
pcntl_signal(SIGTERM, stop(...), false);
for ($number = 0; $number < (int) $argv[1]; $number++) {
    spawn();
}
while (true) {
    $pid = pcntl_waitpid(-1, $status);
    if ($pid > 0) {
        unset($pids[$pid]);
        spawn();
    }
}
