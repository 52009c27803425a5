package ipsec

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// dice is randomness that several goroutines share.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) below(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

func (d *dice) duration(most time.Duration) time.Duration { return time.Duration(d.below(int(most))) }

// weather is what a network does to the messages of the exchanges. Packets of traffic are delayed and reordered
// always.
type weather struct {
	lost, reset, refuse int // of a thousand: messages that vanish, that break their connection; dataplane calls that fail
}

// Traffic in both directions over a network that delays and reorders everything, while both ends rekey by limits and
// on demand, and exchanges break in any way: every packet arrives once, and in the end both ends have one and the same
// pair of SAs.
func TestNoPacketIsLost(t *testing.T) {
	t.Parallel()
	seeds := 30
	if testing.Short() {
		seeds = 10
	}
	for name, w := range map[string]weather{
		"fair":    {},
		"lossy":   {lost: 60},
		"rough":   {lost: 20, reset: 80},
		"refusal": {reset: 20, refuse: 50},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := Limits{Time: 5 * time.Second, Packets: 150, Blocks: 7 * 170}
			b := Limits{Time: 7 * time.Second, Bytes: 100 * 130}
			if w != (weather{}) { // hard limits that bad luck does not reach
				a = Limits{Time: 3 * time.Second, Packets: 500}
				b = Limits{Time: 4 * time.Second, Bytes: 100 * 400}
			}
			rekeys, packets, failures := 0, 0, 0
			for seed := range seeds {
				synctest.Test(t, func(t *testing.T) {
					p := newPair(t, options{seed: uint64(seed), a: a, b: b, grace: stormGrace})
					defer p.close()
					n := p.storm(w, &dice{r: rand.New(rand.NewPCG(uint64(seed), 99))})
					packets += n
					rekeys += len(p.a.seen(Rekeyed)) + len(p.b.seen(Rekeyed))
					failures += len(p.a.seen(Failed)) + len(p.b.seen(Failed))
					if t.Failed() {
						p.say()
						t.Errorf("seed %d", seed)
					}
				})
				if t.Failed() {
					return
				}
			}
			t.Logf("%d packets, %d rekeys of both ends, %d failures", packets, rekeys, failures)
			if rekeys < 20*seeds || w != (weather{}) && failures < seeds {
				t.Error("too few things happened")
			}
		})
	}
}

// stormGrace is shorter than the shortest limit of time, so that there are moments without an old SA.
const stormGrace = 1500 * time.Millisecond

// storm runs traffic and rekeys for a while and returns the number of packets.
func (p *pair) storm(w weather, d *dice) (packets int) {
	p.establish()
	p.deadline = time.Second
	p.over(func(m message, deliver func()) {
		switch roll := d.below(1000); {
		case roll < w.lost:
			return
		case roll < w.lost+w.reset:
			time.AfterFunc(d.duration(50*time.Millisecond), m.conn.reset)
			return
		}
		time.AfterFunc(d.duration(80*time.Millisecond), deliver)
	})
	stop := make(chan struct{})
	var running sync.WaitGroup
	var mu sync.Mutex
	for _, e := range p.ends() {
		e.plane.mu.Lock()
		e.plane.fail = func(op string) error {
			if (op == "AddInbound" || op == "SetOutbound") && d.below(1000) < w.refuse {
				return errors.New("refused by chance")
			}
			return nil
		}
		e.plane.mu.Unlock()
		running.Go(func() { // traffic
			for {
				select {
				case <-stop:
					return
				case <-time.After(d.duration(30 * time.Millisecond)):
				}
				pkt, err := e.plane.send(tunnelName, 100)
				if err != nil {
					p.t.Errorf("%s cannot send: %v", e.name, err)
					return
				}
				mu.Lock()
				packets++
				mu.Unlock()
				running.Add(1)
				time.AfterFunc(d.duration(stormGrace-time.Millisecond), func() {
					defer running.Done()
					if err := e.peer.plane.receive(tunnelName, pkt); err != nil {
						p.t.Errorf("%v: packet from %s: %v", time.Now().Format("05.000"), e.name, err)
					}
				})
			}
		})
		running.Go(func() { // demands
			for {
				select {
				case <-stop:
					return
				case <-time.After(d.duration(4 * time.Second)):
					e.tunnel.Rekey(p.t.Context()) // may fail
				}
			}
		})
	}
	time.Sleep(20 * time.Second)
	close(stop)
	p.over(nil)
	for _, e := range p.ends() {
		e.plane.mu.Lock()
		e.plane.fail = nil
		e.plane.mu.Unlock()
	}
	running.Wait()
	time.Sleep(25 * time.Second) // the last limits of time are reached, and their exchanges done
	synctest.Wait()
	p.quiet()
	p.steady()
	return packets
}

// quiet waits for a moment when no SA is in its grace.
func (p *pair) quiet() {
	for range 100 {
		synctest.Wait()
		a, _ := p.a.plane.installed(tunnelName)
		b, _ := p.b.plane.installed(tunnelName)
		if len(a) == 1 && len(b) == 1 {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	p.t.Error("old SAs do not go")
}

// SPIs never collide, even where there are hardly any.
func TestFewSPIs(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared %v", shared), func(t *testing.T) {
			t.Parallel()
			d := &dice{r: rand.New(rand.NewPCG(1, 2))}
			build := func() *SPIs {
				return &SPIs{Random: func() uint32 { return minSPI + uint32(d.below(12)) }}
			}
			if shared {
				one := build() // of a lab whose two ends are in one node
				build = func() *SPIs { return one }
			}
			bubble(t, options{seed: 1, spis: build, grace: 500 * time.Millisecond}, func(t *testing.T, p *pair) {
				p.establish()
				done := 0
				for range 400 {
					if p.a.tunnel.Rekey(t.Context()) == nil {
						done++
					}
					p.pingBoth()
					time.Sleep(300 * time.Millisecond)
				}
				if done < 50 {
					t.Errorf("only %d rekeys", done)
				}
				if shared {
					p.quiet()
					p.pingBoth()
				}
			})
		})
	}
}

// An end never proposes or offers an SPI that the peer uses on the tunnel, for then its two SAs could not be told apart.
func TestSPIsOfThePeerAreAvoided(t *testing.T) {
	t.Parallel()
	var next []uint32
	sequence := func() *SPIs {
		return &SPIs{Random: func() uint32 {
			spi := next[0]
			next = next[1:]
			return spi
		}}
	}
	bubble(t, options{spis: sequence}, func(t *testing.T, p *pair) {
		next = []uint32{1000, 1001} // A's, B's
		p.establish()
		synctest.Wait()
		next = []uint32{2000, 2001}
		r, err := p.a.tunnel.Accept(2000)
		if err != nil {
			t.Fatal(err)
		}
		if r.SPI() != 2001 {
			t.Errorf("offered SPI %d, which the peer proposed", r.SPI())
		}
		r.Finish(errors.New("over"))
		next = []uint32{1001, 1000, 3000, 3001}
		if err := p.a.tunnel.Rekey(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c := p.a.tunnel.Current(); c != (SPIPair{3000, 3001}) {
			t.Errorf("SPIs %d", c)
		}
	})
}
