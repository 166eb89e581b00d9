"""The project's checks: `nox` runs all but the longest; `nox -s tests-3.12 -- -k lock` runs a part of one."""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "fire", "cluster", "sim", "lint", "typing", "build"]
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)


# Most of the time a test waits for another process, so there is room for more of them than cores.
PARALLEL = ("-n", "6")
# Coverage makes each process slower, and some tests are about time.
MEASURED = ("-n", "4")


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the suite; on the newest Python, measure the branches that it covers, across forks."""
    session.install("-e", ".", *group("test"))
    suite = ("-m", "not fire and not cluster", *session.posargs)
    if session.python != PYTHONS[-1]:
        session.run("pytest", *PARALLEL, *suite)
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *MEASURED, *suite)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", *(["--fail-under=0"] if session.posargs else []))


@nox.session
def fire(session: nox.Session) -> None:
    """Run the tests that repeat a failure until it has had every chance to show."""
    session.install("-e", ".", *group("test"))
    session.run("pytest", *PARALLEL, "-m", "fire", "--timeout=600", *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """Run the tests on daemons of a cluster; as root, with slurm-wlm, munge, postgresql and iproute2."""
    session.install("-e", ".", *group("test"))
    # Some promise to be back within so many seconds, so nothing else may keep the cores busy.
    session.run("pytest", "-n", "4", "-m", "cluster", "--timeout=600", *session.posargs)


@nox.session
def sim(session: nox.Session) -> None:
    """Simulate a million events from a new seed, which is printed; `-- --seed N --events N` repeats a run."""
    session.install("-e", ".")
    session.chdir("tests")
    session.run("python", "-m", "sim", *session.posargs)


@nox.session
def leases(session: nox.Session) -> None:
    """Simulate 1,000 masters on leases, from a new seed, which is printed; `-- --seed N` repeats a run."""
    session.install("-e", ".")
    session.chdir("tests")
    session.run("python", "-m", "cluster", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Shoot at a real instance for two minutes, from a new seed, which is printed; `-- --seed N` repeats a run."""
    session.install("-e", ".")
    session.chdir("tests")
    session.run("python", "-m", "chaos", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure pyworkers beside its peers; `-- budget` and `-- soak` measure it alone, `-- --help` tells the rest."""
    session.install("-e", ".", *group("bench"))
    session.chdir("tests")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the core in some 1,350 ways, and see which of them its tests do not notice; it takes half an hour."""
    session.install("-e", ".", *group("mutation"))
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types, with both checkers."""
    session.install("-e", ".", *group("typing"))
    session.run("mypy")
    session.run("pyright")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, install it alone, and run its command line."""
    session.install("build")
    wheels = session.create_tmp()
    session.run("python", "-m", "build", "--outdir", wheels, silent=True)
    session.install("--no-index", "--no-deps", "--find-links", wheels, "--force-reinstall", "pyworkers")
    session.run("pyworkers", "--version")
