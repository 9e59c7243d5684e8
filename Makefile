# nautilus: the targets a user, a developer and CI share. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Outside the clone, so that builds are incremental across checkouts.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/nautilus/target
export NAUTILUS_BIN ?= $(CARGO_TARGET_DIR)/release/nautilus
# Programs of other languages that the end-to-end tests drive (kubectl among them).
export NAUTILUS_E2E_BIN ?= $(CARGO_TARGET_DIR)/e2e
# Where `make up` keeps the quorum: data, logs, keys, kubeconfig.
DIR ?= .nautilus
NODES ?= 3
# Seconds of `make soak`.
FOR ?= 600

.PHONY: help
help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Install missing build packages and check the toolchain
	@.ci/setup build

.PHONY: build
build: setup ## Build the release binary
	@cargo build --release --workspace --bin nautilus
	@echo "built $(NAUTILUS_BIN)"

.PHONY: dist
dist: setup ## Build the binary for shipping: smaller, slower to build, knows its commit
	@NAUTILUS_GIT_COMMIT=$$(git rev-parse HEAD) NAUTILUS_BUILD_DATE=$$(git show -s --format=%cI HEAD) \
		cargo build --profile dist --workspace --bin nautilus
	@echo "built $(CARGO_TARGET_DIR)/dist/nautilus"

.PHONY: up
up: build ## Start a quorum on this machine and print how to use it
	@$(NAUTILUS_BIN) up --detach --nodes $(NODES) --dir $(DIR)

.PHONY: down
down: ## Stop the quorum of `make up` (its data stays; PURGE=1 removes it)
	@$(NAUTILUS_BIN) down --dir $(DIR) $(if $(PURGE),--purge)

.PHONY: test
test: setup e2e-bin peers client-go ## Every test: unit, property, integration, end to end
	@# The binary with the features of the tests, so that every crate is compiled once.
	@cargo build --release --workspace --bins --tests
	@cargo test --release --workspace --no-fail-fast

.PHONY: client-go
client-go: ## Check and test the Go client library
	@.ci/setup test
	@cd api/client/go && test -z "$$(gofmt -l . | tee /dev/stderr)" && go vet ./... && go test ./...

.PHONY: e2e-bin
e2e-bin: ## Build kubectl and the clients' programs for the end-to-end tests
	@.ci/setup test
	@mkdir -p $(NAUTILUS_E2E_BIN)
	@cd tests/e2e && go build -ldflags "-X k8s.io/component-base/version.gitVersion=v1.37.2" -o $(NAUTILUS_E2E_BIN)/ ./cmd/...
	@cd api/client/go && go build -o $(NAUTILUS_E2E_BIN)/client-go ./examples/worker
	@cargo build --release --workspace -q --example worker \
		&& cp $(CARGO_TARGET_DIR)/release/examples/worker $(NAUTILUS_E2E_BIN)/client-rust
	@cd tests/e2e/rust && cargo build --release -q -p protoc \
		&& PROTOC=$(CARGO_TARGET_DIR)/release/protoc cargo build --release -q -p etcdrust -p kubers \
		&& cp $(CARGO_TARGET_DIR)/release/etcdrust $(CARGO_TARGET_DIR)/release/kubers $(NAUTILUS_E2E_BIN)/
	@python3 -m venv $(NAUTILUS_E2E_BIN)/python
	@$(NAUTILUS_E2E_BIN)/python/bin/pip install -q --disable-pip-version-check -r tests/e2e/python/requirements.txt
	@mkdir -p $(NAUTILUS_E2E_BIN)/javascript && cp tests/e2e/javascript/* $(NAUTILUS_E2E_BIN)/javascript/
	@cd $(NAUTILUS_E2E_BIN)/javascript && npm ci --silent --no-audit --no-fund

.PHONY: lint
lint: setup ## Format, clippy, the dependency graph, the house rules
	@cargo run --release -q -p xtask -- ci

.PHONY: deny
deny: ## Licences, advisories and duplicate versions (needs cargo-deny)
	@cargo deny --all-features check

.PHONY: bench
bench: build ## Failover and store benches, as JSON
	@$(NAUTILUS_BIN) bench failover --output json
	@$(NAUTILUS_BIN) bench store --output json

.PHONY: bench-workers
bench-workers: build ## Workers by the ten thousand, for four numbers of them (about half an hour)
	@$(NAUTILUS_BIN) bench workers --growth --output-dir tests/bench

.PHONY: bench-scheduler
bench-scheduler: build peers ## Beside kube-scheduler, the same pods in turn, on 5,000 and on 100 nodes (about 17 minutes)
	@for nodes in 5000 100; do \
		into=tests/bench/scheduler-$$nodes.json; \
		$(NAUTILUS_BIN) bench scheduler --nodes $$nodes --peers $(NAUTILUS_E2E_BIN) --output json > $$into.new || exit 1; \
		mv $$into.new $$into; cat $$into; \
	done

# Rows, pairs and sizes: `make bench-etcd BENCH="--only failover_gap_ms --pairs 5"`.
.PHONY: bench-etcd
bench-etcd: setup peers ## Beside etcd, the same load in turn (about 25 minutes; BENCH= for options)
	@cargo build --release --workspace --bin nautilus --features nautilus-store/null-cipher
	@cp $(CARGO_TARGET_DIR)/release/nautilus $(CARGO_TARGET_DIR)/nautilus-null-cipher
	@cargo build --release --workspace --bin nautilus --bin nautilus-bench-etcd
	@NAUTILUS_NULL_CIPHER_BIN=$(CARGO_TARGET_DIR)/nautilus-null-cipher \
		$(CARGO_TARGET_DIR)/release/nautilus-bench-etcd --output tests/bench $(BENCH)

# Rows and pairs: `make bench-apiserver BENCH="--only get_per_s --pairs 1"`.
.PHONY: bench-apiserver
bench-apiserver: setup peers ## Beside kube-apiserver, the same load in turn (about 20 minutes; BENCH= for options)
	@cargo build --release --workspace --bin nautilus --bin nautilus-bench-apiserver
	@$(CARGO_TARGET_DIR)/release/nautilus-bench-apiserver --output tests/bench $(BENCH)

.PHONY: peers
peers: ## Build etcd, Kubernetes' control plane, a kubelet and kwok, from their Go modules
	@.ci/setup test
	@mkdir -p $(NAUTILUS_E2E_BIN)
	@cd tests/bench/peers && go build -o $(NAUTILUS_E2E_BIN)/etcd go.etcd.io/etcd/server/v3 \
		&& go build -o $(NAUTILUS_E2E_BIN)/ go.etcd.io/etcd/etcdctl/v3 go.etcd.io/etcd/etcdutl/v3
	@cd tests/e2e/kube-apiserver && go build -p 2 -ldflags "-X k8s.io/component-base/version.gitVersion=v1.37.2" \
		-o $(NAUTILUS_E2E_BIN)/ k8s.io/kubernetes/cmd/kube-apiserver \
		k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes/cmd/kube-scheduler \
		&& go build -p 2 -o $(NAUTILUS_E2E_BIN)/ ./cmd/kubelet
	@cd tests/e2e/kwok && go build -p 2 -o $(NAUTILUS_E2E_BIN)/ sigs.k8s.io/kwok/cmd/kwok

# Needs Debian's containerd, runc, containernetworking-plugins and curl, and root.
.PHONY: kubelet
kubelet: build e2e-bin ## A real kubelet and containerd run pods for a quorum
	@cd tests/e2e/kube-apiserver && go build -p 2 -ldflags "-X k8s.io/component-base/version.gitVersion=v1.37.2" \
		-o $(NAUTILUS_E2E_BIN)/kubelet-real k8s.io/kubernetes/cmd/kubelet
	@tests/kubelet/run $(CARGO_TARGET_DIR)/kubelet

.PHONY: apply-golden
apply-golden: ## Record again what the reference's field management does (needs Go)
	@cd tests/e2e && go run ./cmd/applygolden -seed 1 -cases 140 > ../../api/apply/tests/golden/cases.jsonl

.PHONY: owners-golden
owners-golden: ## Record again whom a kube-apiserver names as owners of fields (needs `make peers`)
	@cd tests/e2e && go run ./cmd/ownersgolden ../../api/rest/tests/face/owners/requests.json \
		> ../../api/rest/tests/face/owners/answers.jsonl

.PHONY: validation-golden
validation-golden: ## Record again what a kube-apiserver defaults, refuses and warns of (needs `make peers`)
	@python3 api/machinery/tests/validation/record.py

.PHONY: published-golden
published-golden: ## Record again what a kube-apiserver publishes of defined kinds (needs `make peers`)
	@python3 api/machinery/tests/validation/published.py

# Some of them: `make workloads-golden WORKLOADS="deployments jobs/ttl"`.
.PHONY: workloads-golden
workloads-golden: ## Record again what Kubernetes' control plane makes of workloads (needs `make peers`; 20 minutes)
	@cargo run --release -q -p nautilus-tests --bin workloads-golden -- $(WORKLOADS)

# Some of them: `make workloads WORKLOADS="deployments jobs/ttl"`.
.PHONY: workloads
workloads: build ## The corpus of workloads on a quorum, against what was recorded (needs `make peers`)
	@WORKLOADS="$(WORKLOADS)" cargo test --release --workspace --test workloads -- --include-ignored --test-threads 1

.PHONY: workloads-large
workloads-large: build ## Workloads on 1,000 and 5,000 nodes of kwok, the leader killed in each (needs `make peers`)
	@for nodes in 1000 5000; do cargo run --release -q -p nautilus-tests --bin workloads-large -- $$nodes; done

.PHONY: patch-golden
patch-golden: ## Record again what the reference's patches do (needs Go)
	@cd tests/e2e && go run ./cmd/patchgolden -seed 3 -cases 300 > ../../api/machinery/tests/golden/patches.jsonl

# What came of each test is in $(CARGO_TARGET_DIR)/conformance/results.json.
.PHONY: conformance
conformance: build e2e-bin ## Kubernetes' own [Conformance] tests of the API, built from its Go module (about 40 minutes)
	@cd tests/conformance && go test -c -p 2 -vet=off -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2" \
		-o $(NAUTILUS_E2E_BIN)/conformance .
	@tests/conformance/run $(CARGO_TARGET_DIR)/conformance $(CONFORMANCE)

.PHONY: schema
schema: ## Generate the facts about kinds and their golden files again (needs Go)
	@cd api/machinery/schema/generate && go run . > ../facts-v1.37.json && go run ./golden ../../tests/golden

.PHONY: soak
soak: build ## Kill and partition a quorum (as root, FOR=600 seconds) and check what it promised
	@cargo run --release -q -p nautilus-chaos-live -- --seconds $(FOR)
