# The two main targets are `make demo` and `make test`. Both first install what they need into .venv.
PYTHON ?= python3
TORCH ?= default
MINUTES ?= 2.5
EPOCHS ?= 60
BIN := .venv/bin
CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo test test-data gpu lint types coverage shuffle campaign clean
.DELETE_ON_ERROR:

demo: .venv/installed
	@echo "\n== 1 of 2: the digit network (784-16-16-10) learns from 3,500 handwritten digits"
	$(BIN)/python train.py configs/digits_demo.toml --overwrite --train.epochs $(EPOCHS)
	$(BIN)/python sample.py digits_demo --test-digits 4
	@echo "\n== 2 of 2: a GPT learns to write Python, from the source code of your own Python ($(MINUTES) minutes)"
	$(BIN)/python train.py configs/python.toml --overwrite --train.minutes $(MINUTES)
	$(BIN)/python sample.py python --prompt "class " --max-tokens 500
	@echo "\n== Now try these (the pip command and the last line, 1 MB of Shakespeare, need a network):"
	@echo "  $(BIN)/python sample.py python --prompt 'def read(' --temperature 0.5 --top-k 20"
	@echo "  $(BIN)/python sample.py digits_demo --image YOUR_DIGIT.png"
	@echo "  $(BIN)/python explore.py digits_demo weights --out weights.png"
	@echo "  $(BIN)/python -m pip install -e '.[page]' && $(BIN)/python explore.py python"
	@echo "  $(BIN)/python train.py configs/finetune.toml --data.path YOUR_TEXT.txt --run mine"
	@echo "  $(BIN)/python train.py configs/shakespeare.toml"

# Two processes of one thread each: more threads would compete for two cores. With worksteal each process starts with one
# contiguous half of the tests, so the fixtures of most files are created only once.
test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

# Only the tests that need downloaded data: PELLUCID_DATA=FOLDER make test-data.
test-data: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -rs -m data

# The tests marked cuda and one row of each benchmark on one GPU, in under four minutes: benchmarks/results/gpu.json.
gpu: .venv/installed-dev
	$(BIN)/python -m benchmarks.gpu

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/pyrefly check

coverage: .venv/installed-dev
	$(BIN)/python -m coverage run --branch --source=configs,data,lens,model,training -m pytest -q
	$(BIN)/python -m coverage report --skip-covered --fail-under=90

# The suite in random order, three times each on one and two threads; --random-order-seed repeats the seed that is printed.
shuffle: .venv/installed-dev
	for threads in 1 2; do for round in 1 2 3; do \
	    OMP_NUM_THREADS=$$threads $(BIN)/python -m pytest --random-order || exit 1; \
	done; done

campaign: .venv/installed-dev
	$(BIN)/python -m pytest -q -n 2 -m campaign
	$(BIN)/python -m pytest -q --hypothesis-profile=thousand tests/test_random_commands.py

.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer is required: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" || { echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv

# torch and torchvision are released in pairs, so one command resolves both.
.venv/installed: pyproject.toml | .venv/bin/python
ifeq ($(TORCH),cpu)
	@echo "Installing into .venv: a download of about 0.3 GB, 1.3 GB on disk (PyTorch without CUDA)"
	$(BIN)/python -m pip install -q --disable-pip-version-check --index-url $(CPU_INDEX) torch torchvision
else
	@echo "Installing into .venv: a download of about 3 GB on Linux, 6 GB on disk (PyTorch with CUDA);"
	@echo "without a GPU, 'make demo TORCH=cpu' downloads a tenth of that"
endif
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/installed-dev: pyproject.toml .venv/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache
