# make demo            from music to a compression / precision curve
# make lab             the notebooks, in JupyterLab
# make quick           the tests that take two to three minutes in all
# make test            every test, JOBS=2 of them at a time: about 12 minutes on two idle cores, 16 on busy ones
# make faults          tests with hosts, schedulers, disks and empty environments: too long for every change
# make check           formatting, lint, types and every test
# make format          mend formatting and what lint can mend
# make bench           how fast, beside other libraries (QUICK=--quick for the short form)
# make bench-growth    how cost grows; make bench-compact: compressed networks made compact
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
# A notebook with other parameters. Cells' output goes to the notebook and through a pipe to here (papermill would cut
# a file that it got as /dev/stdout); bars, drawn on the same pipe, are not kept in the notebook.
notebook = (CPLXNET_PROGRESS=/proc/$$BASHPID/fd/2 exec $(BIN)/papermill --kernel python3 --no-progress-bar \
	--stdout-file /dev/stdout --stderr-file /dev/stderr $(1)) 2>&1 | cat
DEMO := runs/demo
JOBS ?= 2
# One thread each: where two of them share two cores, threads of OpenMP wait for each other, some tests a hundred times as
# long. The longest files first, so that both have work to the end.
pytest := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder tests/notebooks tests/faults tests

.PHONY: env demo lab quick test faults check format bench bench-growth bench-compact clean-demo

env: .venv/installed

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name cplxnet
	mkdir -p .venv/share/jupyter/lab/settings  # pickers are still seen when a notebook is opened again; no news
	echo '{"@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": true}, "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' \
		> .venv/share/jupyter/lab/settings/overrides.json
	-git config filter.notebook.clean ".venv/bin/nbstripout --keep-output --keep-count --keep-id --extra-keys metadata.language_info"
	mkdir -p .venv/etc/ipython  # the kernel warns that its local socket is not encrypted, at every start
	echo 'c.IPKernelApp.log_level = "ERROR"' > .venv/etc/ipython/ipython_kernel_config.py
	touch $@

demo: env
	$(BIN)/python -m extra.corpora.demo
	mkdir -p $(DEMO)
	$(call notebook,experiment_generator.ipynb $(DEMO)/experiment_generator.ipynb -p preset demo)
	$(call notebook,auto_experiment.ipynb $(DEMO)/auto_experiment.ipynb)
	$(call notebook,experiment_analysis.ipynb $(DEMO)/experiment_analysis.ipynb -p folder $(DEMO) -y 'again: [c2e-02-r0]')
	$(BIN)/python -m cplxnet.auto report $(DEMO)
	@echo "figure: $(DEMO)/figures/trade-off.png"

lab: env
	$(BIN)/jupyter lab

quick: env
	$(pytest) -m 'not slow and not faults'

test: env
	$(pytest)

faults: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(pytest)

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/benchmarks
	$(BIN)/python -m extra.benchmarks $(QUICK)

bench-growth bench-compact: bench-%: .venv/benchmarks
	$(BIN)/python -m extra.benchmarks.$*

.venv/benchmarks: .venv/installed extra/benchmarks/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r extra/benchmarks/requirements.txt
	touch $@

clean-demo:
	rm -rf $(DEMO) $(DEMO)-edited $(DEMO)-varied data/demo
