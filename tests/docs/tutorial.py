"""Types what docs/tutorial.md says into an empty home, and compares what is printed with what it promises.

Run by scripts/tutorial. A fenced block's first line says what it is, its language first:

- `sh`: typed, and must succeed; `sh terminal=NAME`: typed in a terminal of its own, where it stays
- any language and a file's name: saved under it; `append=FILE`: added to it
- `text`: lines of what the block before has printed, in this order, others between them; `...` is anything.
  Behind a block of a terminal, or as `text terminal=NAME`, they are waited for. `text interrupt=NAME`: the
  terminal is ended by Ctrl-C first.

What the page does as root is done by `as_root` below the home, with nobody's rights but one's own.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "tutorial.md"
PATIENCE_S = 60.0
PORT = "1883"
"""On the page; here one that is free."""
DAEMONS = "/usr/sbin:/usr/local/sbin"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the rest of its first line, its content, where it begins."""

    language: str
    mark: str
    content: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    """The page's fenced blocks, in order."""
    for found in re.finditer(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2] or "", found[3], page.count("\n", 0, found.start()) + 1)


def matches(promised: str, printed: Sequence[str], start: int = 0) -> tuple[int, str]:
    """How far into `printed` the promised lines reach, and the first that is not there."""
    at = start
    for line in promised.splitlines():
        if line.strip() in ("", "..."):
            continue
        parts = [r"\s+".join(map(re.escape, part.split())) for part in line.split("...")]
        pattern = rf"\s*{'.*'.join(parts)}\s*"
        found = next((i for i in range(at, len(printed)) if re.fullmatch(pattern, printed[i])), None)
        if found is None:
            return at, line
        at = found + 1
    return at, ""


@dataclass
class Terminal:
    """A command that goes on while others are typed."""

    process: subprocess.Popen[bytes]
    log: Path
    read: int = 0
    """Lines of it that have been compared."""

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()


@dataclass
class Reader:
    """A newcomer with an empty home."""

    home: Path
    port: str
    terminals: dict[str, Terminal] = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)
    """Of the last command."""
    last: str = ""
    """The terminal that was typed into last, or nothing."""

    def __post_init__(self) -> None:
        real = Path.home()
        (self.home / "laconic").symlink_to(REPOSITORY)
        (self.home / "bin").mkdir()
        sudo = self.home / "bin" / "sudo"
        sudo.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} --as-root "$@"\n'
        )
        sudo.chmod(0o755)
        self.folder = self.home
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("LACONIC_", "PYTHON", "VIRTUAL_ENV"))
        }
        self.environment = {
            **clean,
            "HOME": str(self.home),
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}:{DAEMONS}",
            "LACONIC_BROKER_URL": f"mqtt://127.0.0.1:{self.port}",
            "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(real / ".cache" / "pip")),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONUNBUFFERED": "1",
            "TUTORIAL_HOME": str(self.home),
        }
        for name in (".config/pip/pip.conf", ".pip/pip.conf"):
            if (real / name).exists():
                self.environment.setdefault("PIP_CONFIG_FILE", str(real / name))

    def take(self, block: Block) -> None:
        """Do what a block says."""
        content = block.content.replace(PORT, self.port)
        kind, _, name = block.mark.partition("=")
        if block.language == "sh" and kind == "terminal":
            self.open(name, content)
        elif block.language == "sh":
            self.type(content)
        elif block.language == "text" and kind == "interrupt":
            self.interrupt(name)
            self.compare(name, content, wait=False)
        elif block.language == "text":
            self.compare(name or self.last, content, wait=True)
        elif kind == "append":
            with (self.folder / name).open("a") as file:
                file.write(content)
        elif block.mark:
            (self.folder / block.mark).write_text(content)
        else:
            fail(f"line {block.line}: nobody knows what to do with this block")

    def type(self, commands: str) -> None:
        where = self.home / "where"
        script = f"{self._begin()}\n{commands}\npwd >{shlex.quote(str(where))}"
        done = subprocess.run(
            ["bash", "-ec", script],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.printed, self.last = done.stdout.splitlines(), ""
        if done.returncode:
            fail(f"exit code {done.returncode} of\n{commands}\n{done.stdout}")
        self.folder = Path(where.read_text().strip())

    def open(self, name: str, command: str) -> None:
        log = self.home / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-ec", f"{self._begin()}\nexec {command}"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.terminals[name], self.last = Terminal(process, log), name

    def interrupt(self, name: str) -> None:
        process = self.terminals[name].process
        process.send_signal(signal.SIGINT)
        if process.wait(PATIENCE_S):
            fail(f"{name} ended with exit code {process.returncode}", self.terminals[name].lines())

    def compare(self, name: str, promised: str, *, wait: bool) -> None:
        if not name:
            _, missing = matches(promised, self.printed)
            if missing:
                fail(f"promised and not printed: {missing!r}", self.printed)
            return
        terminal, until = self.terminals[name], time.monotonic() + PATIENCE_S
        while True:
            read, missing = matches(promised, terminal.lines(), terminal.read)
            if not missing:
                terminal.read = read
                return
            if not wait or time.monotonic() > until or terminal.process.poll() is not None:
                fail(f"promised and not printed by {name}: {missing!r}", terminal.lines())
            time.sleep(0.1)

    def leave(self) -> None:
        """End everything that still runs."""
        for terminal in self.terminals.values():
            if terminal.process.poll() is None:
                terminal.process.send_signal(signal.SIGINT)
        for terminal in self.terminals.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                terminal.process.wait(15)
            terminal.process.kill()
        for file in (self.home / "root" / "running").glob("*"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGTERM)

    def _begin(self) -> str:
        folder = shlex.quote(str(self.folder))
        return f"cd {folder}\nif [ -f venv/bin/activate ]; then . venv/bin/activate; fi"


def fail(what: str, printed: Sequence[str] = ()) -> NoReturn:
    """End, with the last of what was printed."""
    sys.exit("\n".join(["tutorial: " + what, *(f"    | {line}" for line in printed[-40:])]))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# --- what the page does as root ----------------------------------------------------------------------------


def as_root(arguments: Sequence[str]) -> int:
    """Do below the home what a command would do to the machine; refuse what is not known to be harmless."""
    home = Path(os.environ["TUTORIAL_HOME"])
    root = home / "root"
    inside = [_inside(root, word) for word in arguments]
    match list(arguments):
        case ["apt-get", "install", "-y", *packages]:
            lacking = {"mosquitto": "mosquitto", "python3-venv": "python3"}
            for package in packages:
                if shutil.which(lacking[package]) is None:
                    fail(f"{package} is not installed")
        case ["tee", _]:
            Path(inside[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(inside[1]).write_text(sys.stdin.read())
        case ["mkdir" | "cp", *_]:
            if arguments[0] == "cp":
                Path(inside[-1]).parent.mkdir(parents=True, exist_ok=True)
                if arguments[-1].endswith("/"):
                    Path(inside[-1]).mkdir(parents=True, exist_ok=True)
            return subprocess.run(inside, check=False).returncode
        case ["python3", "-m", "venv", _]:
            # The one that the page has made already: a second would take as long to fill.
            Path(inside[-1]).parent.mkdir(parents=True, exist_ok=True)
            Path(inside[-1]).symlink_to(home / "fleet" / "venv")
        case [pip, "install", "--quiet", what] if pip.endswith("/pip"):
            if not (Path(inside[0]).exists() and (Path(what) / "pyproject.toml").exists()):
                fail(f"cannot install {what}")
        case ["systemctl", "restart", "mosquitto"]:
            _start_broker(root)
        case ["systemctl", "enable", "--now", unit]:
            _start_unit(root, unit)
        case ["journalctl", "--unit", unit, "--output", "cat", "--follow", "--lines", lines]:
            os.execvp("tail", ["tail", "-n", lines, "-F", str(root / "journal" / unit)])
        case _:
            fail(f"nobody knows what this would do as root: {shlex.join(arguments)}")
    return 0


def _inside(root: Path, word: str) -> str:
    return re.sub(r"^/(?=(etc|usr/local|var)/)", f"{root}/", word)


def _start_broker(root: Path) -> None:
    told = (root / "etc" / "mosquitto" / "conf.d" / "fleet.conf").read_text()
    file = root / "mosquitto.conf"
    file.write_text(
        re.sub(r"^(listener \d+)$", r"\1 127.0.0.1", told, flags=re.MULTILINE) + f"user {getpass.getuser()}\n"
    )
    _run(root, "mosquitto", ["mosquitto", "-c", str(file)], dict(os.environ))
    port = int(re.findall(r"^listener (\d+)", told, re.MULTILINE)[0])
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    fail("mosquitto does not listen", (root / "journal" / "mosquitto").read_text().splitlines())


def _start_unit(root: Path, unit: str) -> None:
    """Verify a unit, and run what it starts, in its environment."""
    text = (root / "etc" / "systemd" / "system" / f"{unit}.service").read_text()
    command = [_inside(root, w) for w in shlex.split(re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)[0])]
    copy = root / "verified" / f"{unit}.service"
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={command[0]}", text, flags=re.MULTILINE))
    if shutil.which("systemd-analyze"):
        said = subprocess.run(
            ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
        )
        if said.returncode or said.stderr:
            fail(f"systemd-analyze verify: {said.stderr}")
    state = root / "var" / "lib"
    (state / "laconic").mkdir(parents=True)
    words = [w for line in re.findall(r"^Environment=(.+)$", text, re.MULTILINE) for w in shlex.split(line)]
    own = dict(word.replace("%S", str(state)).split("=", 1) for word in words)
    plain = {k: v for k, v in os.environ.items() if k in ("PATH", "LACONIC_BROKER_URL", "PYTHONUNBUFFERED")}
    _run(root, unit, command, {**plain, **own})


def _run(root: Path, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
    for folder in ("journal", "running"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    with (root / "journal" / name).open("wb") as out:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (root / "running" / name).write_text(str(process.pid))


def main() -> None:
    if sys.argv[1:2] == ["--as-root"]:
        sys.exit(as_root(sys.argv[2:]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="an empty folder for the home, which stays")
    options = parser.parse_args()
    home = options.keep or Path(tempfile.mkdtemp(prefix="laconic-tutorial-"))
    home.mkdir(parents=True, exist_ok=True)
    reader, began = Reader(home.resolve(), str(free_port())), time.monotonic()
    try:
        for block in blocks(PAGE.read_text()):
            first = block.content.strip().partition("\n")[0]
            seconds = time.monotonic() - began
            print(
                f"{seconds:5.1f} s  line {block.line:3}  {block.language} {block.mark}  {first}", flush=True
            )
            reader.take(block)
    finally:
        reader.leave()
        if options.keep is None:
            shutil.rmtree(home, ignore_errors=True)
    print(f"{time.monotonic() - began:5.1f} s  the page keeps its promises")


if __name__ == "__main__":
    main()
