# `make` lists the targets. The environments are made on first use from plain Python and pip (uv is used when it is
# there), and left alone until pyproject.toml or constraints.txt changes: a second run installs nothing and needs no network.

PYTHON  := .venv/bin/python
BACKEND := .venv-backends/bin/python
PYTEST  := -m pytest -q -n 2

# $(call choose,NAMES): sets $$python to the first of NAMES that runs and is new enough, or says what is missing.
choose = for python in $(1) python3 none; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; done; \
	[ "$$python" != none ] || { echo "maskplay needs Python 3.11 or newer; none of these is: $(1) python3" >&2; exit 1; }; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$$python cannot make environments: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }

.PHONY: help demo test check test-backends clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: .venv/ready  ## train a classifier on your CPU and compare it with a baseline; DATA=FILE takes your own
	@$(PYTHON) examples/demo.py

test: .venv/ready  ## the whole suite under JAX
	KERAS_BACKEND=jax $(PYTHON) $(PYTEST)

check: .venv/ready  ## lint, types, and the laws of the house
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pyrefly check --python-interpreter-path $(PYTHON)
	KERAS_BACKEND=jax $(PYTHON) -m pytest -q tests/laws

# Tests marked `once` know no backend (tests/conftest.py lists them); all others run again under each. Then those that
# compare with the originals, which are all installed here: transformers, PyTorch, TensorFlow. Last and alone those that
# need a Ray of several processes.
test-backends: .venv-backends/ready  ## the suite under PyTorch and TensorFlow, and live parity with Hugging Face
	KERAS_BACKEND=torch $(BACKEND) $(PYTEST) -m "not once"
	KERAS_BACKEND=tensorflow $(BACKEND) $(PYTEST) -m "not once"
	KERAS_BACKEND=jax $(BACKEND) $(PYTEST) tests/parity/test_*_live.py tests/checkpoints/test_*tensorflow*.py \
	  tests/checkpoints/test_torch_*.py tests/text
	KERAS_BACKEND=jax $(BACKEND) -m pytest -q tests/words/test_cluster.py

clean:  ## remove the environments and caches
	rm -rf .venv .venv-backends .pytest_cache .hypothesis .ruff_cache

# The newest Python here, the oldest below: between them CI sees both ends of the range it finds.
.venv/ready: pyproject.toml constraints.txt
	@$(call choose,python3.13 python3.12 python3.11); set -e; \
	echo "installing into .venv with $$($$python --version) (once; a minute or two)"; \
	if command -v uv >/dev/null; then \
	  uv venv --quiet --clear --python "$$python" .venv; \
	  uv pip install --quiet --python $(PYTHON) -c constraints.txt -e '.[jax,dev]'; \
	else \
	  "$$python" -m venv --clear .venv; \
	  $(PYTHON) -m pip install --quiet -c constraints.txt -e '.[jax,dev]'; \
	fi; \
	touch $@

# Always plain pip: where a CPU build of torch lies in a folder of wheels, pip's settings know it and uv's do not.
.venv-backends/ready: pyproject.toml constraints.txt
	@$(call choose,python3.11 python3.12 python3.13); set -e; \
	echo "installing into .venv-backends with $$($$python --version) (once; some minutes)"; \
	"$$python" -m venv --clear .venv-backends; \
	$(BACKEND) -m pip install --quiet -c constraints.txt torch; \
	$(BACKEND) -m pip install --quiet -c constraints.txt tensorflow-cpu transformers -e '.[jax,dev]'; \
	$(BACKEND) -m pip install --quiet -c constraints.txt -e '.[cluster]' || echo "no Ray for this Python: its tests are skipped"; \
	touch $@
