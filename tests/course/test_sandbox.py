"""The sandbox: what gets past a hook in Python does not get out of it."""

import os
import re
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from utils.course import sandbox
from utils.course.grading import grade
from utils.paths import ROOT

REFERENCE = ROOT / "solutions" / "00_start_here.py"
IMPORTS = "import ctypes, gc, os, sys, time, torch\nfrom pathlib import Path\n"
USES_IT = "    scope = {'torch': torch, 'Tensor': torch.Tensor}\n    exec(text, scope)\n    return scope['gather_last_token'](acts, mask)"
needs_bwrap = pytest.mark.skipif(not sandbox.has_sandbox(), reason="bubblewrap is not here, or may not make namespaces")


def made_of(notebook_with, body, before=""):
    """The grade of a `gather_last_token` with this body."""
    source = f"{IMPORTS}{before}\ndef gather_last_token(acts, mask):\n{textwrap.indent(textwrap.dedent(body), '    ')}"
    (made,) = [made for made in grade(notebook_with(source)) if made.exercise == "gather_last_token"]
    return made


READS = {
    "torch.from_file": f"text = bytes(torch.from_file({str(REFERENCE)!r}, size={REFERENCE.stat().st_size}, dtype=torch.uint8)).decode()\n",
    "open by descriptor": f"fd = os.open({str(REFERENCE.parent)!r}, os.O_RDONLY)\ntext = os.fdopen(os.open('00_start_here.py', os.O_RDONLY, dir_fd=fd)).read()\n",
    "libc": f"libc = ctypes.CDLL(None)\nfd = libc.open({os.fsencode(REFERENCE)!r}, 0)\nbuffer = ctypes.create_string_buffer(100_000)\n"
            "assert libc.read(fd, buffer, 100_000) > 0\ntext = buffer.value.decode()\n",
    "a shared library": f"import numpy as np\ntext = bytes(np.memmap({str(REFERENCE)!r}, dtype=np.uint8, mode='r')).decode()\n",
    "another program": f"import subprocess\ntext = subprocess.run([sys.executable, '-c', 'import sys; print(open(sys.argv[1]).read())', {str(REFERENCE)!r}], capture_output=True, text=True, check=True).stdout\n",
    "the parent's folder": "text = open(f'/proc/{os.getppid()}/cwd/solutions/00_start_here.py').read()\n",
}


@needs_bwrap
@pytest.mark.parametrize("way", READS)
def test_no_way_reads_a_reference(notebook_with, way):
    """Each would pass if the file were there."""
    made = made_of(notebook_with, READS[way] + textwrap.dedent(USES_IT))
    assert made.status in ("error", "copied") and "Error" in made.message or made.status == "copied", made


@pytest.mark.parametrize("way", ["torch.from_file", "open by descriptor", "libc", "a shared library", "another program"])
def test_each_way_reads_it_where_there_is_no_sandbox(way):
    """The control: these ways are real."""
    scope = {}
    exec(IMPORTS + READS[way], scope)
    assert scope["text"].rstrip("\0\n") == REFERENCE.read_text("utf-8").rstrip("\n")


WRITES = {
    "torch.save": "torch.save(acts, {path!r})",
    "os.rename": "open('mine', 'w').close(); os.rename('mine', {path!r})",
    "os.symlink": "os.symlink('/etc', {path!r})",
    "os.link": "open('mine', 'w').close(); os.link('mine', {path!r})",
    "dir_fd": "fd = os.open({folder!r}, os.O_RDONLY); os.close(os.open('escaped', os.O_CREAT | os.O_WRONLY, dir_fd=fd))",
    "ctypes.pythonapi.system": "ctypes.pythonapi.system(b'touch {path}'); assert os.path.exists({path!r})",
    "libc": "assert ctypes.CDLL(None).open(os.fsencode({path!r}), os.O_CREAT | os.O_WRONLY, 0o644) >= 0",
    "the libraries": "open(torch.__file__, 'a').write('x')",
    "utils": "import utils; open(utils.__file__, 'a').write('x')",
    "the root": "os.mkdir('/escaped')",
    "/dev": "os.mkdir('/dev/escaped')",
}


@needs_bwrap
@pytest.mark.parametrize("way", WRITES)
def test_no_way_writes_outside(notebook_with, tmp_path, way):
    made = made_of(notebook_with, WRITES[way].format(path=str(tmp_path / "escaped"), folder=str(tmp_path)) + "\nreturn acts[:, 0]")
    assert made.status == "error", made
    assert not (tmp_path / "escaped").exists() and not os.path.lexists(tmp_path / "escaped")


@needs_bwrap
def test_a_process_that_is_left_behind_ends(notebook_with):
    """Spawned without Python's hooks noticing, in a session of its own: it ends with the answer."""
    body = """
        from multiprocessing.util import spawnv_passfds
        program = b"import os, time; os.setsid(); time.sleep(4321.25)"
        spawnv_passfds(os.fsencode(sys.executable), [os.fsencode(sys.executable), b"-c", program], [])
        if os.fork() == 0:
            os.setsid()
            time.sleep(4321.5)
        return acts[:, 0]
    """
    assert made_of(notebook_with, body).status == "fail"
    # The next answer's process is only made when the last one's are gone.
    assert made_of(notebook_with, "assert sorted(p for p in os.listdir('/proc') if p.isdigit()) == ['1', str(os.getpid())]\nreturn acts[:, 0]").status == "fail"
    left = [p for p in psutil.process_iter(["cmdline"]) if any("4321.25" in word for word in p.info["cmdline"] or ())]
    assert not [p for p in left if "os.setsid" in " ".join(p.info["cmdline"])]


@needs_bwrap
def test_no_path_of_the_references_is_in_the_process(notebook_with):
    """Frames, globals of all modules, every string that is alive: none names the course's folder but as Python's own."""
    body = f"""
        frame, seen, root = sys._getframe(), [], {str(ROOT)!r}
        while frame:
            seen += [frame.f_code.co_filename, *(repr(value)[:100_000] for value in [*frame.f_locals.values(), *frame.f_globals.values()])]
            frame = frame.f_back
        gc.unfreeze()  # what the server froze is looked at, too
        # Read as plain lists and dicts: some subclasses import a library on being read.
        for thing in gc.get_objects():
            plain = dict.values(thing) if isinstance(thing, dict) else list.__iter__(thing) if isinstance(thing, list) else tuple.__iter__(thing) if isinstance(thing, tuple) else ()
            seen += [value for value in plain if isinstance(value, str) and root in value]
        mine = [text for text in seen if root in text.replace(root + "/.venv", "") and "root = " not in text and len(text) < 5_000]
        assert not [text for text in mine if "solutions" in text or "tests" in text], mine[:3]
        return acts[:, 0]
    """
    made = made_of(notebook_with, body)
    assert made.status == "fail", made


@needs_bwrap
def test_the_process_that_makes_the_others_cannot_be_reached(notebook_with):
    """Neither its memory nor its life is in an answer's hands."""
    body = """
        import signal
        for attempt in (lambda: open('/proc/1/mem', 'r+b').read(1), lambda: os.listdir('/proc/1/fd')):
            try:
                attempt()
                return None
            except PermissionError:
                pass
        assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == -1
        os.kill(1, signal.SIGKILL)
        time.sleep(0.1)
        return acts[:, 0]
    """
    made = made_of(notebook_with, body)
    assert made.status == "fail" and "None" not in made.message.split("Came back")[-1][:8], made


@needs_bwrap
def test_there_is_no_network_and_no_way_up(notebook_with):
    body = """
        import socket
        try:
            socket.create_connection(("192.0.2.1", 80), timeout=2)
            return None
        except OSError as error:
            assert error.errno in (101, 111, 113), error   # unreachable, at once: there is no device but the loopback
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        status = open("/proc/self/status").read()
        assert "CapEff:\\t0000000000000000" in status and "NoNewPrivs:\\t1" in status
        return acts[:, 0]
    """
    assert made_of(notebook_with, body).status == "fail"


@needs_bwrap
def test_disk_and_memory_are_bounded(notebook_with):
    body = """
        refused = 0
        try:
            with open("big", "wb") as file:
                for _ in range(200): file.write(b"x" * 2**20)
        except OSError:
            refused += 1
        try:
            torch.zeros(2**30)
        except RuntimeError:
            refused += 1
        assert refused == 2
        return acts[:, 0]
    """
    assert made_of(notebook_with, body, "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n").status == "fail"


@needs_bwrap
def test_the_course_is_covered_where_the_libraries_lie_around_it(monkeypatch, tmp_path):
    """A course inside Python's own folder, as in an image that holds both: it is masked, and the packages put back."""
    monkeypatch.setattr(sandbox, "ROOT", tmp_path / "prefix" / "course")
    monkeypatch.setattr(sandbox, "_library_folders", lambda: [os.path.realpath(sys.base_prefix), str(tmp_path / "prefix"), str(tmp_path / "prefix" / "course" / ".venv")])
    (tmp_path / "prefix" / "course" / ".venv").mkdir(parents=True)
    (tmp_path / "prefix" / "course" / "utils").mkdir()
    (tmp_path / "prefix" / "course" / "solutions").mkdir()
    listing = f"import os; print(os.listdir({str(tmp_path / 'prefix' / 'course')!r}))"
    done = subprocess.run([*sandbox._bwrap(), os.path.realpath(sys.executable), "-I", "-S", "-c", listing], capture_output=True, text=True)
    assert done.stdout == "['.venv']\n", done.stderr


def test_without_bubblewrap_the_seat_belt_holds_and_is_said(notebook_with, monkeypatch):
    """The hook keeps out what it sees, correct answers pass, and the teacher is told what it is worth."""
    sandbox.has_sandbox.cache_clear()
    monkeypatch.setattr(sandbox, "_program", lambda: "")
    plain = sandbox.Server()
    monkeypatch.setattr("utils.course.grading.server", lambda: plain)
    try:
        assert not plain.sandboxed and sandbox.how_it_is_guarded().startswith("[fix] bubblewrap is not here")
        right = "last = mask.long().cumsum(1).argmax(1)\nreturn acts[torch.arange(len(acts)), last]"
        assert made_of(notebook_with, right, "import numpy as np\nfrom utils.hooks import resid_post\n").status == "pass"
        assert made_of(notebook_with, f"open({str(REFERENCE)!r})").status == "copied"
        for body in (f"open({str(ROOT / 'README.md')!r})", "import subprocess; subprocess.run(['true'])", "os.listdir('/home')", "os.system('true')"):
            assert made_of(notebook_with, body).message.find("PermissionError") > 0, body
        child = plain._process.pid
    finally:
        plain.close()
        sandbox.has_sandbox.cache_clear()
    assert not psutil.pid_exists(child)


def test_a_server_that_dies_is_started_again():
    made = sandbox.Server()
    try:
        made.child().close()
        made._process.kill()
        made._process.wait()
        answer = made.child()
        assert re.fullmatch(r"\d+", str(made._process.pid)) and made._process.poll() is None
        answer.close()
    finally:
        made.close()


def test_a_child_that_says_nothing_is_given_up_in_time():
    made = sandbox.Server()
    try:
        child = made.child()
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            child.ask({"name": "f", "cells": [[1, "import time\nf = time.sleep(9)"]], "exercises": {}, "with_model": False}, 1.0)
        assert time.monotonic() - started < 5
    finally:
        made.close()
