# Commands for a newcomer, each sets up its own virtual environment from nothing:
#   make demo    compile the embedded teacher on the embedded data, print the result
#   make test    install everything the tests need and run them
#   make attack  mutants of every format, kills and full disks, every form against float64: the short forms

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test attack lint docs wheel audit clean

demo: $(VENV)/demo.ok
	$(BIN)/tsfmc compile --recipe benchmarks/demo.toml --out demo
	$(BIN)/tsfmc verify demo/onnx

test: $(VENV)/test.ok
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

# The short forms; without --check each takes long and writes its results.
attack: $(VENV)/test.ok
	$(BIN)/python benchmarks/fuzz.py --mutants 500 --check
	$(BIN)/python benchmarks/crash.py --check
	$(BIN)/python benchmarks/differential.py --draws 300 --check

lint: $(VENV)/test.ok
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p .build && ln -sfn .. .build/tsfmc
	cd .build && PYTHONPATH=. ../$(BIN)/lint-imports --no-cache ../pyproject.toml
	cd .build && ../$(BIN)/mypy --config-file ../pyproject.toml -p tsfmc.compiler -p tsfmc.passes -p tsfmc.targets

# The reference is read off the source, through a folder that holds nothing but the package.
docs: $(VENV)/docs.ok
	mkdir -p .build/docs/tsfmc
	for part in __init__.py compiler passes targets; do ln -sfn ../../../$$part .build/docs/tsfmc/$$part; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: $(VENV)/test.ok
	rm -rf dist .build/wheel
	$(BIN)/python -m build --wheel --outdir dist . >/dev/null
	$(PYTHON) -m venv .build/wheel
	.build/wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(ls dist/*.whl)[demo]"
	cd .build && wheel/bin/tsfmc --version
	cd .build && wheel/bin/tsfmc compile --dry-run
	cd .build && wheel/bin/tsfmc compile --set 'pipeline=["build_student"]' --stop-after build_student
	cd .build && wheel/bin/tsfmc doctor

# Known vulnerabilities of the pinned versions; needs a network that reaches the advisory database of PyPI.
audit:
	test -x .build/audit/bin/pip-audit || $(PYTHON) -m venv .build/audit
	.build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.build/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# The constraints file pins torch to a release with a CPU build; an unpinned torch pulls gigabytes of CUDA.
$(VENV)/base.ok: pyproject.toml constraints.txt setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt --editable .
	touch $@

$(VENV)/demo.ok: $(VENV)/base.ok
	$(PIP) -c constraints.txt --editable ".[demo]"
	touch $@

$(VENV)/test.ok: $(VENV)/base.ok
	$(PIP) -c constraints.txt --editable ".[demo,tvm,trt-check,dev]"
	touch $@

$(VENV)/docs.ok: $(VENV)/base.ok
	$(PIP) -c constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .build build dist demo out *.egg-info
