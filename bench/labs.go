// Package bench measures how fast pqlab is, beside a peer where one is installed. All figures of a result come from one
// run, in which what is compared takes turns.
package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"pqlab/lab"
	"pqlab/topology"
)

// Labs is how long labs take to come up and go down.
type Labs struct {
	Pair    []Lab `json:"pair"`  // with its two agents and its tunnel's policy, without an exchange
	Chain   []Lab `json:"chain"` // of hosts, without services
	Nodes   int   `json:"chain_nodes"`
	Mininet []Lab `json:"mininet"` // a chain of MininetNodes; empty where it is not installed
	// MininetNodes are fewer than Nodes, because it takes milliseconds for each.
	MininetNodes   int    `json:"mininet_nodes"`
	MininetMissing string `json:"mininet_missing,omitempty"` // why it was not measured
}

// Lab is one lab, up and down.
type Lab struct {
	Up   float64 `json:"up_ms"`
	Down float64 `json:"down_ms"`
	RSS  uint64  `json:"peak_rss_bytes,omitempty"` // the most that this process held while the lab came up
}

// Median of the times that f picks.
func Median(labs []Lab, f func(Lab) float64) float64 {
	if len(labs) == 0 {
		return 0
	}
	values := make([]float64, len(labs))
	for i, l := range labs {
		values[i] = f(l)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// What labs are meant to keep to, on two cores that have nothing else to do.
const (
	GoalPairUp   = 50 * time.Millisecond
	GoalChain    = 1000 // nodes
	GoalChainUp  = 3 * time.Second
	GoalChainRSS = 64 << 20 // bytes
)

// mininetNodes is enough for a figure per node, and ends soon.
const mininetNodes = 50

// MeasureLabs makes each lab runs times, taking turns.
func MeasureLabs(ctx context.Context, nodes, runs int, progress func(string)) (Labs, error) {
	out := Labs{Nodes: nodes, MininetNodes: mininetNodes}
	pair, err := topology.Builtin("pair")
	if err != nil {
		return out, err
	}
	for i := range runs {
		progress(fmt.Sprintf("pair, run %d of %d", i+1, runs))
		l, err := upDown(ctx, pair)
		if err != nil {
			return out, err
		}
		out.Pair = append(out.Pair, l)
		progress(fmt.Sprintf("chain of %d, run %d of %d", nodes, i+1, runs))
		if l, err = upDown(ctx, topology.Chain(nodes)); err != nil {
			return out, err
		}
		out.Chain = append(out.Chain, l)
		if out.MininetMissing != "" {
			continue
		}
		progress(fmt.Sprintf("Mininet's chain of %d, run %d of %d", mininetNodes, i+1, runs))
		l, err = mininet(ctx)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if err != nil {
			out.MininetMissing = err.Error()
			continue
		}
		out.Mininet = append(out.Mininet, l)
	}
	return out, nil
}

func upDown(ctx context.Context, t *topology.Topology) (Lab, error) {
	p, err := t.Plan()
	if err != nil {
		return Lab{}, err
	}
	if err := resetPeak(); err != nil {
		return Lab{}, err
	}
	began := time.Now()
	l, err := lab.Up(ctx, p, lab.Options{Log: os.Stderr})
	if err != nil {
		return Lab{}, err
	}
	out := Lab{Up: ms(time.Since(began))}
	rss, err := peakResidentSet()
	began = time.Now()
	if errDown := l.Down(context.WithoutCancel(ctx)); errDown != nil {
		return out, errDown
	}
	out.Down, out.RSS = ms(time.Since(began)), rss
	return out, err
}

// resetPeak makes the kernel forget the largest resident set until now (proc(5), clear_refs).
func resetPeak() error {
	debug.FreeOSMemory() // what an earlier lab left to the collector is not this one's
	return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}

func peakResidentSet() (uint64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no VmHWM")
}

// mininetChain makes the chain that topology.Chain describes, and prints both times.
const mininetChain = `
import json, sys, time
from mininet.net import Mininet
n = int(sys.argv[1])
t = time.time()
net = Mininet(controller=None)
hosts = [net.addHost('h%d' % i, ip=None) for i in range(n)]
for i in range(n - 1):
    net.addLink(hosts[i], hosts[i + 1], params1={'ip': '10.%d.%d.1/24' % (i >> 8, i & 255)}, params2={'ip': '10.%d.%d.2/24' % (i >> 8, i & 255)})
net.build()
up = time.time() - t
t = time.time()
net.stop()
print(json.dumps({'up_ms': up * 1e3, 'down_ms': (time.time() - t) * 1e3}))
`

func mininet(ctx context.Context) (Lab, error) {
	if os.Geteuid() != 0 {
		return Lab{}, fmt.Errorf("not root, which Mininet needs")
	}
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", "-c", mininetChain, strconv.Itoa(mininetNodes))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return Lab{}, fmt.Errorf("cannot run Mininet (Debian package mininet): %w: %s", err, lines[len(lines)-1])
	}
	var l Lab
	if err := json.Unmarshal(text, &l); err != nil {
		return Lab{}, fmt.Errorf("no times from Mininet: %w", err)
	}
	return l, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
