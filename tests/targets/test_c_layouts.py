"""The artifact as a library of Arduino, PlatformIO and Zephyr, by their own tools where they can be had.

Arduino's builder and its AVR core, whose program qemu executes, come from Debian; PlatformIO's own checks of
a manifest come with its command line.  Zephyr's tree and arduino-cli come from no registry: of these the
documented rules are checked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from c_students import SHAPE, lower, needs, student
from required import absent

from tsfmc.targets.c.emit import synthetic_window

LIBRARY = "tsfmc_model"
HARDWARE = Path("/usr/share/arduino/hardware")
CTAGS = (
    '"/usr/bin/arduino-ctags" -u --language-force=c++ -f - --c++-kinds=svpf --fields=KSTtzns '
    '--line-directives "{source_file}"'
)
CATEGORIES = {
    "Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing", "Data Storage",
    "Data Processing", "Other",
}  # fmt: skip
"""Of the Arduino library specification."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of libraries with the artifact of a small student in it."""
    folder = tmp_path_factory.mktemp("libraries")
    lower(student("low_rank_map"), folder / LIBRARY)
    return folder


def test_arduino_builds_the_example_and_an_8_bit_board_runs_it(library: Path, tmp_path: Path) -> None:
    """An ATmega2560: 16-bit int, floats at any address, 8 KiB of RAM."""
    needs("arduino-builder", "avr-gcc", "qemu-system-avr")
    if not HARDWARE.is_dir():
        absent("arduino-core-avr")
    shutil.copytree(library / LIBRARY / "examples" / "SelfTest", tmp_path / "SelfTest")
    build = tmp_path / "build"
    build.mkdir()
    preferences = {
        "tools.ctags.pattern": CTAGS,
        "compiler.path": "/usr/bin/",
        "runtime.tools.avr-gcc.path": "/usr",
        "compiler.cpp.extra_flags": "-DDECIMAL_DIG=9",  # Debian's core asks a header for it that has it not
    }
    command = [
        *("arduino-builder", "-compile", "-hardware", str(HARDWARE), "-tools", "/usr/bin"),
        *("-libraries", str(library), "-fqbn", "arduino:avr:mega:cpu=atmega2560"),
        *("-build-path", str(build), "-warnings", "all"),
        *(part for name, value in preferences.items() for part in ("-prefs", f"{name}={value}")),
        str(tmp_path / "SelfTest" / "SelfTest.ino"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ours = [line for line in done.stderr.splitlines() if f"{LIBRARY}" in line and "warning" in line]
    assert all("unroll" in line for line in ours), ours
    used = re.search(r"Global variables use (\d+) bytes", done.stdout)
    assert used and int(used[1]) < 4096

    count = SHAPE.variates * SHAPE.horizon
    status, *forecast = printed(build / "SelfTest.ino.elf", 1 + count)
    assert status == "0"
    with torch.no_grad():
        expected = student("low_rank_map")(
            torch.from_numpy(synthetic_window(SHAPE.variates, SHAPE.lookback))
        ).numpy()
    np.testing.assert_allclose(np.array(forecast, np.float64), expected.reshape(-1), atol=2e-5)


def printed(program: Path, lines: int) -> list[str]:
    """What an Arduino program prints first; it never ends by itself."""
    command = ["timeout", "60", "qemu-system-avr", "-M", "mega2560", "-nographic", "-bios", str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        found = [process.stdout.readline().strip() for _ in range(lines)]
        process.terminate()
    return found


def test_the_properties_follow_arduinos_specification(library: Path) -> None:
    text = (library / LIBRARY / "library.properties").read_text()
    given = dict(line.split("=", 1) for line in text.splitlines())
    assert {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url"} <= set(
        given
    )
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}", given["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", given["version"])
    assert given["category"] in CATEGORIES and given["architectures"] == "*"
    assert (library / LIBRARY / "src" / given["includes"]).is_file()


def test_platformio_packs_the_library_alone(library: Path, tmp_path: Path) -> None:
    """Its command line checks library.json against its schema, and takes what the library needs."""
    pio = Path(sys.executable).with_name("pio")
    if not pio.is_file():
        absent("platformio")
    quiet = {"PLATFORMIO_CORE_DIR": str(tmp_path / "core"), "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no"}
    environment = {**os.environ, **quiet}

    def pack(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [str(pio), "pkg", "pack", "-o", str(tmp_path / "packed.tar.gz"), str(folder)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = pack(library / LIBRARY)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(tmp_path / "packed.tar.gz") as archive:
        names = {name for name in archive.getnames() if Path(name).suffix}
    assert names == {
        "library.json",
        "library.properties",
        "src/tsfmc_model.c",
        "src/tsfmc_model.h",
        "tsfmc_model.c",
        "tsfmc_model.h",
        "examples/SelfTest/SelfTest.ino",
    }
    wrong = tmp_path / "wrong"
    shutil.copytree(library / LIBRARY, wrong)
    manifest = json.loads((wrong / "library.json").read_text())
    (wrong / "library.json").write_text(json.dumps({**manifest, "version": "one"}))
    assert pack(wrong).returncode != 0, "it does check"


def test_the_module_follows_zephyrs_documentation(library: Path) -> None:
    """``build.cmake`` names a folder with a CMakeLists.txt, whose sources exist."""
    folder = library / LIBRARY
    module = yaml.safe_load((folder / "zephyr" / "module.yml").read_text())
    assert module == {"name": LIBRARY, "build": {"cmake": "zephyr"}}
    lists = folder / module["build"]["cmake"] / "CMakeLists.txt"
    commands = dict(re.findall(r"^(zephyr_\w+)\((.*)\)$", lists.read_text(), re.MULTILINE))
    assert set(commands) == {
        "zephyr_library_named",
        "zephyr_library_sources",
        "zephyr_library_compile_options",
        "zephyr_include_directories",
    }
    assert (lists.parent / commands["zephyr_library_sources"]).resolve() == folder / "tsfmc_model.c"
    assert (lists.parent / commands["zephyr_include_directories"] / "tsfmc_model.h").is_file()
