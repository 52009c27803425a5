package ipsec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// explore runs f once for each sequence of choices that f can make. choose(n) gives 0 to n-1.
func explore(t *testing.T, f func(choose func(n int) int)) (runs int) {
	var path, width []int
	for {
		step := 0
		f(func(n int) int {
			if step == len(path) {
				path, width = append(path, 0), append(width, n)
			} else if width[step] != n {
				t.Fatalf("not repeatable: %d choices at step %d of %v, %d before", n, step, path, width[step])
			}
			step++
			return path[step-1]
		})
		runs++
		if t.Failed() {
			t.Fatalf("choices %v in run %d", path, runs)
		}
		for len(path) > 0 && path[len(path)-1] == width[len(path)-1]-1 {
			path, width = path[:len(path)-1], width[:len(width)-1]
		}
		if len(path) == 0 {
			return runs
		}
		path[len(path)-1]++
	}
}

// held is a message that waits to be delivered.
type held struct {
	message
	deliver func()
}

// Both ends reach a limit of the same SAs. Every order of the two triggers and of all messages that follow, with
// every single break of a connection, ends with one new pair of SAs at both ends and no packet lost: neither those
// that are sent between any two steps and arrive at once, nor those that arrive after all steps.
func TestSimultaneousRekeyInAllInterleavings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		seed   uint64 // of the SPIs, and so of who wins
		breaks int
	}{
		{1, 0}, {4, 0}, {4, 1},
	} {
		if tt.breaks > 0 && testing.Short() {
			t.Log("without breaks of connections: -short")
			continue
		}
		t.Run(fmt.Sprintf("seed %d, %d breaks", tt.seed, tt.breaks), func(t *testing.T) {
			t.Parallel()
			won := make(map[string]int)
			runs := explore(t, func(choose func(int) int) {
				synctest.Test(t, func(t *testing.T) {
					p := newPair(t, options{seed: tt.seed})
					defer p.close()
					won[interleave(t, p, choose, tt.breaks)]++
				})
			})
			t.Logf("%d interleavings; began by %v", runs, won)
			if runs < 100 || won["A"] == 0 || won["B"] == 0 {
				t.Error("that is not all of them")
			}
		})
	}
}

func interleave(t *testing.T, p *pair, choose func(int) int, breaks int) (winner string) {
	p.establish()
	synctest.Wait()
	var waiting []held
	p.over(func(m message, deliver func()) { waiting = append(waiting, held{m, deliver}) })
	old := p.a.tunnel.Current()
	untriggered := p.ends()
	var slow []func() error // packets on their way
	var told []string
	for {
		synctest.Wait()
		p.pingBoth()
		for _, e := range p.ends() {
			pkt, err := e.plane.send(tunnelName, 100)
			if err != nil {
				t.Fatal(err)
			}
			slow = append(slow, func() error { return e.peer.plane.receive(tunnelName, pkt) })
		}
		// No lock: all goroutines are blocked.
		slices.SortStableFunc(waiting, func(a, b held) int {
			return cmp.Or(cmp.Compare(a.conn.id, b.conn.id), cmp.Compare(side(a.toInitiator), side(b.toInitiator)))
		})
		var next []func()
		for i, m := range waiting {
			next = append(next, func() {
				told = append(told, fmt.Sprintf("%d:%s", m.conn.id, m.kind))
				waiting = slices.Delete(waiting, i, i+1)
				m.deliver()
			})
		}
		for i, e := range untriggered {
			next = append(next, func() {
				told = append(told, "trigger "+e.name)
				untriggered = slices.Delete(slices.Clone(untriggered), i, i+1)
				spi := old.Out
				if e == p.b {
					spi = old.In
				}
				e.plane.expiries <- Expiry{Tunnel: tunnelName, SPI: spi, Trigger: ByBlocks}
			})
		}
		if len(next) == 0 {
			break
		}
		if breaks > 0 {
			for i, m := range waiting {
				next = append(next, func() {
					told = append(told, fmt.Sprintf("%d:break before %s", m.conn.id, m.kind))
					waiting = slices.Delete(waiting, i, i+1)
					breaks--
					m.conn.reset()
				})
			}
		}
		next[choose(len(next))]()
	}
	for _, receive := range slow {
		if err := receive(); err != nil {
			t.Errorf("slow packet: %v", err)
		}
	}
	broken := slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, "break") })
	if a, b := len(p.a.seen(Rekeyed)), len(p.b.seen(Rekeyed)); !broken && (a != 1 || b != 1) {
		t.Errorf("%d and %d rekeys before any pause: one of the exchanges must go on", a, b)
	}
	p.over(nil)
	for range 10 {
		time.Sleep(1200 * time.Millisecond)
		p.pingBoth()
	}
	p.steady()
	rekeyed, n := p.a.seen(Rekeyed), len(p.b.seen(Rekeyed))
	if len(rekeyed) == 0 || n == 0 || !broken && (len(rekeyed) != 1 || n != 1) {
		t.Errorf("%d and %d rekeys, want one", len(rekeyed), n)
	}
	for _, e := range p.ends() {
		for _, failed := range e.seen(Failed) {
			if !broken { // to be refused by a busy peer is none, nor to give way
				t.Errorf("%s failed: %v", e.name, failed.Err)
			}
		}
	}
	if t.Failed() {
		t.Log(told)
		p.say()
		return ""
	}
	if rekeyed[0].Initiator {
		return "A"
	}
	return "B"
}
