# Everything here needs Go and nothing else of ours. Works as root and as an ordinary user.
GO ?= go

# Another implementation of Falcon, in JavaScript, that the tests of pqc/falcon compare with; used if Node.js is there.
noble = pqc/falcon/noble
installed = $(noble)/node_modules/.package-lock.json

.PHONY: demo test testvm testvm_links testvm_commands testvm_xfrm whole floats lint bench fidelity kills fuzz guest tshark build clean

## demo: one lab from topology to rekeying ESP traffic over Wi-Fi, measured; the report is out/demo/index.html. Airtime takes TAP
## interfaces, and a machine that lends none runs the lab without
demo: build
	@demo() { echo "bin/pqlab run north-south $$*"; bin/pqlab run north-south "$$@"; }; \
	set -- --duration 5s --rekey-blocks 2000000 --report out/demo; \
	demo "$$@" || { status=$$?; [ $$status = 3 ] || exit $$status; demo "$$@" --shaper none; }

## test: lint, every test with the race detector, which is every claim too, and then testvm; what was skipped says why.
## Tests wait much, so that four packages run at a time; those that take longest begin. Vet has run: lint's has all
# checks of go test's own, and -race below is for the files that only the detector sees
test: lint build guest tshark $(installed)
	$(GO) tool gotestsum --format pkgname -- -race -vet=off -timeout 30m -p 4 ./suites/... ./cmd/... ./...
	$(MAKE) --no-print-directory whole floats
	@if command -v qemu-system-x86_64 >/dev/null && { bin/pqlab vm fetch >/dev/null || bin/pqlab vm -- true; }; then \
		$(MAKE) --no-print-directory testvm; \
	else \
		echo "NOT TESTED: no claim and no package in a guest kernel, with the kernel's own IPsec and netem: there is no QEMU or no kernel for it here (docs/guest.md)"; \
	fi


## testvm: the claims in guest kernels that have IPsec and netem, and the tests of the packages that are about these
testvm: build guest
	bin/pqlab test --mode vm
	$(MAKE) --no-print-directory -j 2 -O testvm_links testvm_commands testvm_xfrm

# Tests that want a kernel with IPsec and netem, which the machine's own may not have: a guest for each package, two at a time,
# the longest first. What wants no such kernel is tested on the machine itself.
guest_test = CGO_ENABLED=0 $(GO) test -count 1 -p 1 -timeout 30m -exec '$(CURDIR)/bin/pqlab vm --memory 1G --'
testvm_links:
	$(guest_test) -skip '/(wire|tbf)$$' ./links
testvm_commands:
	$(guest_test) -run 'RunXfrm|RunStrongSwan|RunCaptureDecrypted/xfrm|ByHand|HandRefused|MeasureSAs' ./cmd/pqlab ./bench
testvm_xfrm:
	$(guest_test) ./ipsec/xfrm ./internal/xfrmnl

## whole: all of the tests that compute for long, of which the race detector, under which they take five to ten times as long, gets a part
whole:
	CGO_ENABLED=0 $(GO) test -count 1 $$(grep -rl --include='*_test.go' '"pqlab/internal/race"' . | xargs -n1 dirname | sort -u) ./internal/race

## floats: Falcon where the compiler could fuse multiplications and additions, and in integers only: the results are the same
floats:
	@if grep -qw avx2 /proc/cpuinfo && grep -qw fma /proc/cpuinfo; then GOAMD64=v3 $(GO) test ./pqc/falcon; \
	else echo "not tested: pqc/falcon with GOAMD64=v3: not run, this processor has no AVX2 or no FMA"; fi
	@$(GO) test -tags falcon_emulated ./pqc/falcon

## lint: formatting, vet, staticcheck; without cgo, of which nothing is used here, so that packages are compiled once for these and build
lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt needed:"; echo "$$unformatted"; exit 1; fi
	CGO_ENABLED=0 $(GO) vet ./...
	$(GO) vet -race $$(grep -rl --include='*.go' '^//go:build race' . | xargs -n1 dirname)
	CGO_ENABLED=0 $(GO) tool staticcheck ./...

## bench: what is slow, measured
bench: build
	bin/pqlab bench labs
	bin/pqlab bench tunnel
	bin/pqlab bench exchange
	bin/pqlab bench crypto --iterations 1000
	$(GO) test -run '^$$' -bench . ./lab ./pqc/... ./ipsec/... ./traffic

## fidelity: the tables of docs/fidelity.md, from files that bench links --json wrote: make fidelity RESULTS="host.json guest.json"
measured = out/fidelity.md
fidelity: build
	@mkdir -p $(dir $(measured))
	bin/pqlab bench links --markdown $(RESULTS) > $(measured)
	sed -i -e '/^<!-- measured -->$$/,/^<!-- until here -->$$/{//!d}' -e '/^<!-- measured -->$$/r $(measured)' docs/fidelity.md

## kills: kill pqlab at 200 random moments, and see that nothing is left
kills:
	PQLAB_KILLS=200 $(GO) test -count 1 -timeout 60m ./suites/hygiene

## fuzz: every fuzz target for a minute, or FUZZTIME
FUZZTIME ?= 60s
fuzz:
	@grep -rl '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(cat $$dir/*_test.go | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p'); do \
			echo "$$dir $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$dir || exit 1; \
		done; \
	done

$(installed): $(noble)/package-lock.json
	@if command -v npm >/dev/null; then \
		npm ci --prefix $(noble) --ignore-scripts --no-audit --no-fund --silent && touch $@ || \
		echo "pqc/falcon: @noble/post-quantum could not be installed; the tests that compare with it are skipped"; \
	fi

## guest: QEMU and a kernel for pqlab vm, where they are missing; without them what needs a guest is skipped, and says so
guest: build
	@command -v qemu-system-x86_64 >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		install="apt-get install -y -q -o DPkg::Lock::Timeout=120 --no-install-recommends qemu-system-x86"; \
		$$install || { apt-get update -q && $$install; } || echo "guest: QEMU could not be installed" >&2; \
	else \
		echo "guest: no QEMU here; as root on Debian: apt-get install --no-install-recommends qemu-system-x86" >&2; \
	fi
	@bin/pqlab vm fetch || { [ "$$(id -u)" = 0 ] && apt-get update -q && bin/pqlab vm fetch; } || \
		echo "guest: no kernel; what needs a guest will be skipped" >&2
	@bin/pqlab vm fetch --strongswan || { [ "$$(id -u)" = 0 ] && apt-get update -q && bin/pqlab vm fetch --strongswan; } || \
		echo "guest: no strongSwan; the baseline to compare with cannot be verified" >&2

## tshark: Wireshark's reader, which the tests hold captures against; without it they are skipped, and say so
tshark:
	@command -v tshark >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; install="apt-get install -y -q -o DPkg::Lock::Timeout=120 --no-install-recommends tshark"; \
		$$install || { apt-get update -q && $$install; } || echo "tshark could not be installed" >&2; \
	else \
		echo "no tshark here; as root on Debian: apt-get install --no-install-recommends tshark" >&2; \
	fi

# Without cgo the program is static, and starts in a guest's first files without any other.
build:
	CGO_ENABLED=0 $(GO) build -o bin/pqlab ./cmd/pqlab

clean:
	rm -rf bin out $(noble)/node_modules
