"""For every test: no key, no named target and no cache of whoever runs it. And a browser for the tests of pages."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import certifi
import pytest
from hypothesis import HealthCheck, settings
from platformdirs import user_cache_path

from tests.cli.forked_commands import python, share_forks

__all__ = ["python"]  # a fixture

# The headless shell is Chromium without its windows, and opens a page in two thirds of the time.
_BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _BROWSERS)), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
# What a page can be made to be later too, with the values of a new one.
_CHANGEABLE = {"color_scheme": "light", "reduced_motion": "no-preference"}
_VIEWPORT = {"width": 1280, "height": 720}
Lend = Callable[[dict[str, Callable[[Any], Any]]], AbstractContextManager[Callable[..., Any]]]
# These choose tests, and the server that they meet.
_CHOOSING = ("SWEEPER_OBJECT_INFO", "SWEEPER_SCHEDULES", "SWEEPER_REAL_COMFYUI", "SWEEPER_REAL_RESTART")
_NO_PRIVILEGE = 1314  # the error of Windows
ISSUERS = os.environ.get("SSL_CERT_FILE")  # of this machine
# PYTEST_ADDOPTS has options for this suite, which a pytest that a test starts inside itself must not take.
_FOREIGN = (
    "COMFY_CLOUD_API_KEY", "COMFY_API_KEY", "DASK_SCHEDULER_ADDRESS", "NO_COLOR", "FORCE_COLOR", "PYTEST_ADDOPTS",
)  # fmt: skip


# Where compiled files are forbidden, each of the hundreds of processes that tests start would compile the package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it, and what the tests start would too
# Hypothesis keeps there what it computes of Unicode and of all our modules, which takes two seconds of each process.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parent.parent / ".hypothesis"))


# The tests write thousands of databases and wait for the disk after each job, which a file system in memory need not.
# Their folders take a gigabyte. That of a container may be smaller, or execute nothing.
_MEMORY = "/dev/shm"
if os.access(_MEMORY, os.W_OK):
    found = os.statvfs(_MEMORY)
    if found.f_bavail * found.f_frsize > 4 * 2**30 and not found.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)


# A process gets whole files, so that their fixtures are made once; all files of `cluster/` share one cluster. The files
# that take longest (half a minute to two minutes each) start first, so that no process works alone at the end.
_LONGEST = (
    "cluster/", "running/test_stalling_servers.py", "cli/test_follow.py", "running/test_same_key_again.py",
    "github/test_check_action.py", "launching/test_restarts.py", "regression/test_bisection.py",
    "running/test_never_paid_twice.py", "cli/test_assistant_limits.py", "reporting/live/test_page.py",
    "reporting/live/test_check.py", "running/test_hostile_servers.py", "regression/test_accept_and_check.py",
    "cli/test_planted_modules.py", "reporting/test_one_file.py", "running/test_judges.py", "running/test_faults.py",
    "editing/test_runs.py", "running/test_interruptions.py", "running/test_promises.py", "editing/test_page.py",
    "running/test_client_on_a_server.py", "reporting/test_heat.py", "running/test_runpod.py",
    "reporting/test_page.py", "running/test_models.py", "running/test_budget.py", "editing/test_cell_actions.py",
    "test_readme.py", "regression/test_pytest_plugin.py", "voting/test_vote_report.py", "voting/test_vote_page.py",
    "voting/test_search_votes.py", "voting/test_votes_command.py", "test_shipped_files.py",
)  # fmt: skip


# A busy machine is slow, and that says nothing about the code: hypothesis must not fail a test for its time.
settings.register_profile("any machine", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_xdist_auto_num_workers() -> int:
    """How many processes `--numprocesses auto` starts: five for two cores, because tests often wait.

    But at most one for each gigabyte of memory, because each takes half of one, and a browser besides.
    """
    cores = os.cpu_count() or 1
    if not hasattr(os, "sysconf"):
        return 5 * cores // 2
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**30
    return max(1, min(5 * cores // 2, gigabytes))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """For `--dist loadfile`: one process for each file, and one for all files of `tests/cluster`."""
    from xdist.scheduler import LoadFileScheduling

    class LoadFiles(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/cluster" if nodeid.startswith("tests/cluster/") else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # by `pytest_collection_modifyitems`, not by how many tests a file has
    return LoadFiles(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what takes longest, and go on in the written order."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        order = {name: index for index, name in enumerate(_LONGEST)}

        def place(item: pytest.Item) -> int:
            name = item.nodeid.partition("::")[0].removeprefix("tests/")
            return order.get(name, order.get(f"{name.partition('/')[0]}/", len(order)))

        items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Iterator[object]:
    """Start one process that forks commands for all processes of pytest, because it takes a second."""
    is_parallel = getattr(config.option, "numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ
    with share_forks() if is_parallel and hasattr(os, "pidfd_open") else contextlib.nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[object]:
    """Collect without the garbage collector, and spare it what was collected: each look at that takes half a second."""
    gc.disable()
    try:
        import_tests(session)
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def import_tests(session: pytest.Session) -> None:
    """Import the tests in another order in each process, so that each file is compiled once and not once a process."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")  # gw0, gw1, ...
    if worker is None or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    root = Path(__file__).parent
    names = [
        ".".join(("tests", *path.relative_to(root).with_suffix("").parts)) for path in sorted(root.rglob("test_*.py"))
    ]
    start = len(names) * int(worker[2:]) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for name in names[start:] + names[:start]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # pytest imports it again and reports the error
            importlib.import_module(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Skip a test whose own code needs what Windows lacks. That sweeper needs nothing such is checked by mypy."""
    try:
        return (yield)
    except (AttributeError, OSError) as error:
        if getattr(error, "winerror", None) == _NO_PRIVILEGE:
            pytest.skip("this user may not make symbolic links")
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        is_own = Path(__file__).parent in Path(frame.f_code.co_filename).parents
        if sys.platform == "win32" and is_own and getattr(error, "obj", None) in (os, signal):
            pytest.skip(f"Windows lacks what this test needs: {error}")
        raise


pytest_runtest_call = pytest_runtest_setup


@pytest.fixture(autouse=True, scope="session")
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home: Path = tmp_path_factory.mktemp("home")
    before = dict(os.environ)
    for name in [*_FOREIGN, *(name for name in os.environ if name.startswith("SWEEPER_"))]:
        if name not in _CHOOSING:
            os.environ.pop(name, None)
    os.environ["XDG_CACHE_HOME"] = str(home / "cache")
    os.environ["XDG_CONFIG_HOME"] = str(home / "config")
    os.environ["WIN_PD_OVERRIDE_LOCAL_APPDATA"] = str(home)  # of platformdirs, on Windows
    with pytest.MonkeyPatch.context() as patch:
        if not any(name.startswith("SWEEPER_REAL_") for name in before):
            # Each client of httpx reads all issuers, which takes 6 ms, and no server of the tests has a certificate
            # of one. Clients that ignore the environment read those of certifi.
            first, end, _ = Path(certifi.where()).read_text("utf-8").partition("-----END CERTIFICATE-----\n")
            (home / "issuers.pem").write_text(first + end, "utf-8")
            os.environ["SSL_CERT_FILE"] = str(home / "issuers.pem")
            patch.setattr(certifi, "where", lambda: str(home / "issuers.pem"))
        yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True, scope="session")
def _ports_of_stopped_servers() -> Iterator[None]:
    """Keep the ports of the latest servers: while a test has stopped one, nothing else may get its port and answer."""
    from sweeper.serving import hosting  # the process that starts the others needs no server

    listen, kept = hosting.bind, deque[socket.socket]()

    def bind(host: str, port: int) -> socket.socket:
        if port == 0:
            holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((host, 0))
            port = holder.getsockname()[1]
            kept.append(holder)  # now, because another thread may start a server meanwhile
        if len(kept) > 100:
            kept.popleft().close()
        return listen(host, port)

    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":  # elsewhere no other socket may listen at a port that is bound
            patch.setattr(hosting, "bind", bind)
        yield
    for found in kept:
        found.close()


@pytest.fixture(autouse=True)
def _no_server_of_an_earlier_test() -> None:
    """Forget what servers told: the port of one, and so its entry in the cache, may be another's in a later test."""
    shutil.rmtree(user_cache_path("sweeper", appauthor=False), ignore_errors=True)
    if "sweeper.running.target_models" in sys.modules:
        sys.modules["sweeper.running.target_models"]._listed.clear()


@pytest.fixture(autouse=True)
def _thread_failures_fail_the_test() -> Iterator[None]:
    """An exception in a thread fails its test at once, also while the test waits for that thread."""
    if not hasattr(signal, "SIGUSR2"):  # on Windows pytest reports it when the test ends
        yield
        return
    failures: list[threading.ExceptHookArgs] = []

    def fail(*_: object) -> None:
        failure = failures[0]
        text = "".join(traceback.format_exception(failure.exc_type, failure.exc_value, failure.exc_traceback))
        pytest.fail(f"a thread failed:\n{text}", pytrace=False)

    def report(failure: threading.ExceptHookArgs) -> None:
        failures.append(failure)
        if len(failures) == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)

    before, threading.excepthook = threading.excepthook, report
    previous = signal.signal(signal.SIGUSR2, fail)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, previous)
        threading.excepthook = before


@pytest.fixture(scope="session")
def _chromium() -> Iterator[tuple[Any, asyncio.AbstractEventLoop]]:
    """The browser of this process, and the event loop on which Playwright drives it."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (apt-get install chromium, or set CHROMIUM)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives chromium")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        loop = asyncio.get_running_loop()
        yield found, loop
        asyncio._set_running_loop(loop)
        found.close()


@pytest.fixture(scope="session")
def _free_pages() -> list[LentPage]:
    """Empty pages. A new one takes a tenth of a second of the processor, mostly for its process."""
    return []


@pytest.fixture(scope="module")
def browser(_chromium: tuple[Any, asyncio.AbstractEventLoop], _free_pages: list[LentPage]) -> Iterator[Any]:
    """The browser. While a module uses it, Playwright's loop is the running one; other modules may run their own."""
    found, loop = _chromium
    asyncio._set_running_loop(loop)
    yield found
    kept = [free.page.context for free in _free_pages]
    for context in found.contexts:
        if context not in kept:
            context.close()
    asyncio._set_running_loop(None)


@pytest.fixture
def lend_pages(browser: Any, _free_pages: list[LentPage]) -> Lend:
    """Lend empty pages: `with lend_pages({event: listener}) as lend: page = lend(viewport=...)`.

    The options of `lend` are those of a browser's context. Where they can be taken back, the page is lent again to a
    later test, unless it is `alone`, which a test says that changes the page for good.
    """

    @contextlib.contextmanager
    def lend_them(listeners: dict[str, Callable[[Any], Any]]) -> Iterator[Callable[..., Any]]:
        lent: list[LentPage] = []
        others = []

        def lend(*, alone: bool = False, **options: Any) -> Any:
            if alone or not options.keys() <= {"viewport", *_CHANGEABLE}:
                page = browser.new_context(**options).new_page()
                others.append(page)
            else:
                lent.append(_free_pages.pop() if _free_pages else LentPage(browser))
                lent[-1].change(**options)
                page = lent[-1].page
            for event, listener in listeners.items():
                page.on(event, listener)
            return page

        yield lend
        for page in others:
            page.context.close()
        for free in lent:
            free.empty()
            for event, listener in listeners.items():
                free.page.remove_listener(event, listener)
        _free_pages.extend(lent)

    return lend_them


class LentPage:
    """A page that one test after the other uses."""

    def __init__(self, browser: Any) -> None:
        self.page = browser.new_context().new_page()
        self._session = self.page.context.new_cdp_session(self.page)
        self._emulate = self.page.emulate_media
        self._media: dict[str, Any] = {}
        self.page.emulate_media = self._change_media
        self.page.wait_for_function = self._wait_for

    def change(self, viewport: Mapping[str, int] = _VIEWPORT, **media: Any) -> None:
        """Take the options of a context. What is so already would still cost a layout of the page before."""
        if self.page.viewport_size != viewport:
            self.page.set_viewport_size(viewport)
        self._change_media(**{"media": "null", **_CHANGEABLE, **media})
        self.page.mouse.move(0, 0)

    def empty(self) -> None:
        """Make the browser forget what the page has stored. A page from a disk stays until its next test."""
        page = self.page
        for other in page.context.pages:
            if other != page:
                other.close()
        page.unroute_all()
        page.evaluate("localStorage.clear()")
        if page.url.startswith("http:"):
            page.context.clear_cookies()
            page.goto("about:blank")  # which keeps the process, where a file would start another
            self._session.send("Storage.clearDataForOrigin", {"origin": "file://", "storageTypes": "local_storage"})

    def _change_media(self, **media: Any) -> None:
        if self._media | media != self._media:
            self._emulate(**media)
            self._media |= media

    def _wait_for(self, script: str, *, arg: Any = None, timeout: float = 60_000) -> None:
        """As Playwright's method, which first loads 300 kB into each page, and asks whenever a frame is drawn."""
        wanted = script if re.match(r"(\w+|\([^()]*\)) =>", script) else f"() => ({script})"
        ask = f"""async ([argument, end]) => {{
            const isTrue = {wanted};
            while (!isTrue(argument)) {{
                if (Date.now() > end) return false;
                await new Promise((resolve) => setTimeout(resolve, 10));
            }}
            return true;
        }}"""
        end, is_true = time.time() * 1000 + timeout, None
        while is_true is None:
            try:
                is_true = self.page.evaluate(ask, [arg, end])
            except Exception as error:  # the page was left
                if "context was destroyed" not in str(error):
                    raise
        assert is_true, f"{script} was not true within {timeout} ms"
