# Everything here needs Go and nothing else of ours. Works as root and as an ordinary user.
GO ?= go
SUITES := $(notdir $(patsubst %/,%,$(wildcard suites/*/)))

.PHONY: demo test lint bench build clean

## demo: one lab from topology to rekeying ESP traffic, measured; the report is out/demo/index.html
demo: build
	bin/pqlab run east-west --duration 5s --rekey-blocks 2000000 --report out/demo

## test: lint, then every unit test and every suite that this machine can run
test: lint
	$(GO) test -race ./...

## lint: vet, staticcheck, formatting
lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt needed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

## bench: what is slow, measured
bench: build
	bin/pqlab bench labs
	bin/pqlab bench tunnel
	$(GO) test -run '^$$' -bench . ./pqc/... ./ipsec/...

build:
	$(GO) build -o bin/pqlab ./cmd/pqlab

clean:
	rm -rf bin out
