"""Descriptors that build systems of microcontrollers look for, beside the one ``.c`` and the one ``.h``.

    Arduino      library.properties, sources in src/, a sketch in examples/
    PlatformIO   library.json, which names what of the artifact belongs to the library
    Zephyr       zephyr/module.yml, zephyr/CMakeLists.txt

The sources stay where they are: ``src/`` includes them.
"""

from __future__ import annotations

import json
from pathlib import Path

from .emit import HEADER, SOURCE

VERSION = "1.0.0"
_SUMMARY = "A compiled time series forecaster"
_SKETCH = f"""/* Prints 0 when this board computes what was compiled, then the forecast of the self-test. */
#include <{HEADER}>

static float past[TSFMC_INPUT_SIZE], forecast[TSFMC_OUTPUT_SIZE];
static unsigned char scratch[TSFMC_SCRATCH_BYTES];

void setup() {{
  Serial.begin(115200);
  Serial.println(tsfmc_selftest(&tsfmc_student, past, forecast, scratch));
  for (int i = 0; i < TSFMC_OUTPUT_SIZE; ++i) Serial.println(forecast[i], 5);
}}

void loop() {{}}
"""
_FILES = {
    "library.properties": f"""name=tsfmc_model
version={VERSION}
author=tsfmc
maintainer=tsfmc
sentence={_SUMMARY}.
paragraph=One C file without allocation: past values in, forecast out.
category=Data Processing
url=https://example.org/tsfmc
architectures=*
includes={HEADER}
""",
    "examples/SelfTest/SelfTest.ino": _SKETCH,
    "library.json": json.dumps(
        {
            "name": "tsfmc_model",
            "version": VERSION,
            "description": _SUMMARY,
            "keywords": "forecasting, time series",
            "headers": HEADER,
            "build": {"srcDir": "src", "includeDir": "src", "flags": ["-ffp-contract=fast"]},
            "export": {"include": ["library.*", "src", "examples", SOURCE, HEADER]},
        },
        indent=2,
    )
    + "\n",
    f"src/{HEADER}": f'#include "../{HEADER}"\n',
    f"src/{SOURCE}": f'#include "../{SOURCE}"\n',
    "zephyr/module.yml": "name: tsfmc_model\nbuild:\n  cmake: zephyr\n",
    "zephyr/CMakeLists.txt": f"""zephyr_library_named(tsfmc_model)
zephyr_library_sources(../{SOURCE})
zephyr_library_compile_options(-O2 -ffp-contract=fast)
zephyr_include_directories(..)
""",
}


def write_layouts(folder: Path) -> list[str]:
    """Writes the descriptors; returns their names."""
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(_FILES)
