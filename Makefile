# Every target is one call; what it does lives in dev/. `make help` lists them.
PYTHON = .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup generate verify lint types test test-unit test-integration test-e2e test-long test-autoawq fuzz \
	cluster images push site demo demo-quantize demo-env down clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: ## make .venv, the development environment, from its lock
	@dev/bootstrap.sh

demo: setup ## raise the cluster, install, fine-tune, serve, and ask questions through the router
	@$(PYTHON) -m dev demo

demo-quantize: setup ## after make demo: make its expert smaller, measure it, serve it and ask it
	@$(PYTHON) -m dev demo-quantize

demo-env: setup ## print export lines for kubectl and the openai client: eval "$(make -s demo-env)"
	@$(PYTHON) -m dev env

cluster: setup ## raise the local cluster and nothing else
	@$(PYTHON) -m dev up

images: setup ## build the images and load them into the cluster that is up
	@$(PYTHON) -m dev images

push: setup ## push the images to a registry: make push REGISTRY=registry.example/team
	@$(PYTHON) -m dev.images push $(REGISTRY)

down: setup ## remove all that was started: processes, mounts, links, routes, cgroups, the cluster's state
	@$(PYTHON) -m dev down

clean: down ## remove the caches and the development environment too
	@$(PYTHON) -m dev clean
	@rm -rf .venv

site: setup ## the documents as a site: build/docs/site/index.html
	@$(PYTHON) -m dev.site

generate: setup ## write what is generated: CRDs, the reference, golden manifests
	@$(PYTHON) -m dev generate

verify: setup ## check that everything generated is current
	@$(PYTHON) -m dev verify

lint: setup ## ruff, the import rule, YAML
	@$(PYTHON) -m dev lint

types: setup ## mypy, strict
	@$(PYTHON) -m mypy

test: setup ## everything that this machine can run
	@$(PYTHON) -m dev test

test-unit: setup ## unit and golden tests: no cluster
	@$(PYTHON) -m dev test unit

test-integration: setup ## against a real kube-apiserver and etcd
	@$(PYTHON) -m dev test integration

test-e2e: setup ## on the local cluster, with real pods
	@$(PYTHON) -m dev test e2e

fuzz: setup ## search for bytes and orders of events that break the router, for about ten minutes
	@$(PYTHON) -m dev test fuzz

test-autoawq: setup ## QuantizeJob with AutoAWQ, which is archived upstream, in its own image
	@$(PYTHON) -m dev test autoawq

test-long: setup ## what is too long for make test
	@$(PYTHON) -m dev test long
