# The two modes that isolate need root; everything else is done as the user who runs make.
as_root := $(if $(filter 0,$(shell id -u)),,sudo)
bin := .venv/bin

.PHONY: setup install uninstall demo lab test test-long test-kvm lint docs attacks fuzz soak crowd volumes networks clones guest-clones boot dax console pristine against picture bench reference clean

setup:                  ## packages, .venv, image tiny, kernel; can be repeated
	.ci/setup

install:                ## a link in /usr/local/bin, which is also in the PATH of sudo (secure_path)
	.ci/links install

uninstall:              ## remove the link, .venv and leftovers; with DATA=1 also instances and images; packages are named
	.ci/uninstall $(if $(DATA),--data)

demo: setup             ## one web workload as host process, container and VM, compared
	$(as_root) $(bin)/vmctl bench configs/workloads/web.yaml --modes host,container,vm --runs 3 --quick

lab: setup              ## the first lab, from a fresh clone to its verdict; another one: LAB=same-port
	$(as_root) $(bin)/vmctl lab run $(or $(LAB),shared-kernel)

test:                   ## every test but the long ones: three at a time (a fifth of the time is waiting), then those that look at the whole host
	.ci/setup --tests
	$(as_root) $(bin)/python -m pytest -m 'not long and not alone' -n 3 --dist loadfile --no-loadscope-reorder
	$(as_root) $(bin)/python -m pytest -m 'not long and alone'

test-long:              ## those that repeat in a guest, or whole, what a shorter one shows
	.ci/setup --tests
	$(as_root) $(bin)/python -m pytest -m long

test-kvm:               ## the tests and the bench of guests under KVM, on a host that has it, and what to send back; never run on such a host
	.ci/setup --tests
	cd tests && $(as_root) ../$(bin)/python -m soak.kvm --out ../.cache/kvm

attacks:                ## every attempt to get out, and the table of their results in SECURITY.md
	.ci/setup --tests
	$(as_root) $(bin)/python -m pytest -m attack -n 3 --dist loadfile --attack-table

fuzz:                   ## 100,000 hostile inputs for each parser, guided by the code that they reach; a part of it: ONLY="workload marks"
	.ci/setup --tests
	$(bin)/pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	cd tests && ../$(bin)/python -m fuzz --out ../.cache/fuzz $(ONLY)

soak:                   ## 2,000 cycles of containers and 60 of guests with SIGKILL at random moments, and as an ordinary user
	.ci/setup --tests
	cd tests && $(as_root) ../$(bin)/python -m soak --cycles 2000 --mode container $(SEED)
	cd tests && $(as_root) ../$(bin)/python -m soak --cycles 200 --mode host $(SEED)
	cd tests && $(as_root) ../$(bin)/python -m soak --cycles 60 --mode vm $(SEED)
	cd tests && $(as_root) ../$(bin)/python -m soak --cycles 500 --mode container --mode host --user $(SEED)
	cd tests && $(as_root) ../$(bin)/python -m soak --cycles 20 --mode vm --user $(SEED)

crowd:                  ## 300 containers at once: the last start compared with the first, `ps`, `stats`, supervisors' memory, nothing left; other numbers: COUNT=1000
	.ci/setup --tests
	cd tests && $(as_root) ../$(bin)/python -m soak.crowd --count $(or $(COUNT),300)

volumes:                ## the speed of a guest's volume compared with the same virtiofsd started by hand, in the same guest
	cd tests && $(as_root) ../$(bin)/python -m soak.volumes --rounds $(or $(ROUNDS),10)

clones:                 ## a clone compared with a plain start, 1,000 clones by 8 workers, nothing left
	.ci/setup --tests
	cd tests && $(as_root) ../$(bin)/python -m soak.clones --count $(or $(COUNT),1000)

guest-clones:           ## clones of guests and warm starts, compared with a guest that boots, and the memory of ten idle clones
	cd tests && $(as_root) ../$(bin)/python -m soak.guestclones --rounds $(or $(ROUNDS),7)

console:                ## what messages of the kernel on the serial console take of a guest's boot
	cd tests && $(as_root) ../$(bin)/python -m soak.console --rounds $(or $(ROUNDS),15)

boot:                   ## what each saving of a guest's cold start gives, alone and all together
	cd tests && $(as_root) ../$(bin)/python -m soak.boot --rounds $(or $(ROUNDS),10)

dax:                    ## memory of three guests that read a 207 MB image, with its layer read in place and as a disk
	cd tests && $(as_root) ../$(bin)/python -m soak.dax

networks:               ## what a network costs: a start with name and port, throughput, published ports, the way out, names
	.ci/setup --tests
	cd tests && $(as_root) ../$(bin)/python -m soak.networks

pristine:               ## what a pristine PostgreSQL costs a test: a clone, a new database, a template database, `docker run`; ROUNDS=30
	.ci/setup --tests
	$(as_root) $(bin)/vmctl image build postgres
	cd docs/examples/pristine && $(as_root) $(abspath $(bin))/python measure.py --rounds $(or $(ROUNDS),30) --accounts $(or $(ACCOUNTS),1000)

against:                ## a start here compared with an earlier checkout that has a .venv, in the same rounds: THAN=FOLDER
	cd tests && $(as_root) ../$(bin)/python -m soak.against $(abspath $(THAN)) -- run --network none tiny -- true
	cd tests && $(as_root) ../$(bin)/python -m soak.against $(abspath $(THAN)) -- run tiny -- true

lint:                   ## formatting, lints, types, plain English
	.ci/setup --lint
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/python .ci/phrases.py

docs:                   ## the generated parts of docs/reference.md
	$(bin)/python -m vmctl.cli.reference docs/reference.md

picture: setup          ## docs/demo.svg, the terminal recording in README.md
	$(as_root) $(bin)/python docs/picture.py docs/demo.svg

bench:                  ## the demo with enough rounds for intervals, our own cost compared with others', an import compared with tar, clones with starts
	.ci/setup --tests
	rm -rf bench/results
	$(as_root) $(bin)/vmctl bench configs/workloads/web.yaml --modes host,container,vm --runs 30 --out bench/results/web
	$(as_root) $(bin)/vmctl bench peers --runs 30 --out bench/results
	$(as_root) $(bin)/vmctl bench images --runs 5 --out bench/results
	$(as_root) $(bin)/vmctl bench clones --runs 5 --out bench/results

reference:              ## measure bench/reference and docs/results.md anew, on a quiet machine: about an hour
	.ci/setup --tests
	$(as_root) $(bin)/python docs/measure.py

clean:                  ## forget what setup made in this checkout; the image store stays
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache *.egg-info
