package ipsec

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pqlab/internal/clock"
)

func TestTriggers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		trigger Trigger
		limits  Limits
		below   int // packets of 100 bytes that do not reach the limit; one more does
	}{
		{ByPackets, Limits{Packets: 10}, 9},
		{ByBytes, Limits{Bytes: 1000}, 9},
		{ByBytes, Limits{Bytes: 1001}, 10},
		{ByBlocks, Limits{Blocks: 70}, 9}, // 7 blocks each, for 100/16 is 6.25
		{ByBlocks, Limits{Blocks: 71}, 10},
		{ByPackets, Limits{Packets: 1}, 0},
	} {
		t.Run(fmt.Sprintf("%s %+v", tt.trigger, tt.limits), func(t *testing.T) {
			t.Parallel()
			bubble(t, options{a: tt.limits, b: tt.limits}, func(t *testing.T, p *pair) {
				p.establish()
				// B sends, though A established: who sends is whose turn it is.
				for range tt.below {
					p.b.ping()
				}
				time.Sleep(time.Second)
				if got := p.b.seen(Rekeyed); len(got) != 0 {
					t.Fatalf("rekeyed below the limit: %+v", got)
				}
				p.b.ping()
				synctest.Wait()
				b, a := p.b.seen(Rekeyed), p.a.seen(Rekeyed)
				if len(b) != 1 || b[0].Trigger != tt.trigger || !b[0].Initiator {
					t.Fatalf("B at the limit: %+v", b)
				}
				if len(a) != 1 || a[0].Trigger != ByPeer || a[0].Initiator {
					t.Errorf("A at the limit: %+v", a)
				}
				n := uint64(tt.below) + 1
				want := Counters{Blocks: 7 * n, Bytes: 100 * n, Packets: n, Seq: n}
				if b[0].Triggered.Out != want || b[0].Replaced.Out != want || b[0].Replaced.In != (Counters{}) {
					t.Errorf("usage at the trigger %+v, replaced %+v; want out %+v", b[0].Triggered, b[0].Replaced, want)
				}
				time.Sleep(settled)
				if retired := p.a.seen(Retired); len(retired) != 1 || retired[0].Replaced.In != want {
					t.Errorf("retired %+v, want in %+v", retired, want)
				}
			})
		})
	}
}

func TestReceiverIsTheBackstop(t *testing.T) {
	t.Parallel()
	bubble(t, options{a: Limits{Packets: 80}, b: Limits{Packets: 1000}}, func(t *testing.T, p *pair) {
		p.establish()
		for range 89 {
			p.b.ping() // B would begin at 1000
		}
		if got := p.a.seen(Rekeyed); len(got) != 0 {
			t.Fatalf("at 89: %+v", got)
		}
		p.b.ping()
		if got := p.a.seen(Rekeyed); len(got) != 1 || got[0].Trigger != ByPackets || !got[0].Initiator {
			t.Fatalf("at 90: %+v", got)
		}
	})
}

func TestExpiriesCoalesce(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		old := p.a.tunnel.Current()
		for _, why := range []Trigger{ByBlocks, ByBytes, ByPackets} {
			p.a.plane.expiries <- Expiry{tunnelName, old.Out, why, false}
			p.a.plane.expiries <- Expiry{tunnelName, old.In, why, false}
			p.b.plane.expiries <- Expiry{tunnelName, old.Out, why, false}
			p.b.plane.expiries <- Expiry{tunnelName, old.In, why, false}
		}
		time.Sleep(settled)
		p.steady()
		total := len(p.a.seen(Rekeyed))
		if total != len(p.b.seen(Rekeyed)) || total < 1 || total > 2 {
			t.Errorf("%d rekeys at A, %d at B for twelve expiries of one pair", total, len(p.b.seen(Rekeyed)))
		}
		// Those of replaced SAs, and of tunnels and SAs that are not there, change nothing.
		now := p.a.tunnel.Current()
		p.a.plane.expiries <- Expiry{tunnelName, old.Out, ByBytes, false}
		p.a.plane.expiries <- Expiry{tunnelName, old.In, ByBytes, true}
		p.a.plane.expiries <- Expiry{"other", now.In, ByBytes, true}
		p.a.plane.expiries <- Expiry{tunnelName, 0, ByBytes, true}
		time.Sleep(settled)
		if p.a.tunnel.Current() != now || len(p.a.seen(Expired)) != 0 {
			t.Error("an expiry of a replaced SA had an effect")
		}
	})
}

func TestLimitReachedDuringTheExchange(t *testing.T) {
	t.Parallel()
	for _, sender := range []string{"initiator", "responder"} {
		t.Run(sender, func(t *testing.T) {
			t.Parallel()
			limits := Limits{Packets: 8}
			bubble(t, options{a: limits, b: limits}, func(t *testing.T, p *pair) {
				p.establish()
				busy := true
				p.over(func(m message, deliver func()) {
					if m.kind == "bye" && busy { // A uses the new SAs, the exchange is not over for it
						busy = false
						from := p.a
						if sender == "responder" {
							from = p.b
						}
						for range 8 {
							from.ping()
						}
						time.AfterFunc(time.Second, deliver)
						return
					}
					deliver()
				})
				if err := p.a.tunnel.Rekey(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Second)
				if n := len(p.a.seen(Rekeyed)); n != 2 {
					t.Errorf("%d rekeys, want the demanded one and that of the limit", n)
				}
				p.steady()
			})
		})
	}
}

func TestTimeIsTenMinutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := clock.NewManual(time.Unix(0, 0))
		p := newPair(t, options{clock: c})
		defer p.close()
		p.establish()
		for round := range 3 {
			before := p.a.tunnel.Current()
			c.Advance(10*time.Minute - time.Millisecond)
			synctest.Wait()
			if p.a.tunnel.Current() != before {
				t.Fatalf("round %d: rekeyed before ten minutes", round)
			}
			c.Advance(time.Millisecond)
			synctest.Wait()
			if p.a.tunnel.Current() == before {
				t.Fatalf("round %d: not rekeyed at ten minutes", round)
			}
			p.pingBoth()
		}
		c.Advance(DefaultGrace)
		p.steady()
		a, b := p.a.seen(Rekeyed), p.b.seen(Rekeyed)
		if len(a) != 3 || len(b) != 3 {
			t.Fatalf("%d and %d rekeys, want 3", len(a), len(b))
		}
		for i := range a {
			if a[i].Trigger != ByTime || b[i].Trigger != ByPeer || a[i].At.Sub(time.Unix(0, 0)) != time.Duration(i+1)*10*time.Minute {
				t.Errorf("rekey %d: A %+v, B %+v", i, a[i], b[i])
			}
		}
		if len(p.a.seen(Retired)) != 3 {
			t.Errorf("retired: %+v", p.a.seen(Retired))
		}
	})
}

func TestTimeOfTwoClocks(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"initiator", "responder"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var ca, cb clock.Manual
				p := newPair(t, options{clock: &ca})
				defer p.close()
				p.b.set.clock = &cb
				p.establish()
				clocks := []*clock.Manual{&ca, &cb}
				if first == "responder" {
					slices.Reverse(clocks)
				}
				for _, c := range clocks {
					c.Advance(10 * time.Minute)
					synctest.Wait()
				}
				if n := len(p.a.seen(Rekeyed)); n != 1 {
					t.Errorf("%d rekeys", n)
				}
			})
		})
	}
}

func TestTimeAtTheResponder(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		p.over(func(m message, deliver func()) {
			if m.conn.initiator == p.b {
				deliver()
			}
		})
		time.Sleep(DefaultTime + DefaultTime/8 - time.Millisecond)
		if n := len(p.b.seen(Rekeyed)); n != 0 {
			t.Fatalf("%d rekeys too early", n)
		}
		// A waits for an answer now and then, and meanwhile refuses B; B comes back.
		time.Sleep(30 * time.Second)
		if got := p.b.seen(Rekeyed); len(got) != 1 || got[0].Trigger != ByTime {
			t.Errorf("B: %+v", got)
		}
		if n := len(p.a.seen(Failed)); n == 0 {
			t.Error("A's attempts left no event")
		}
	})
}

func TestDefaultBlocks(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		out := p.a.plane.tunnels[tunnelName].current
		in := p.b.plane.tunnels[tunnelName].in[out.SPI]
		if out.Soft != (Limits{Blocks: 1 << 30}) || out.Hard != (Limits{Blocks: 1 << 32}) {
			t.Errorf("outbound limits soft %+v, hard %+v", out.Soft, out.Hard)
		}
		if in.Soft != (Limits{Blocks: 1<<30 + 1<<27}) || in.Hard != (Limits{Blocks: 1 << 32}) {
			t.Errorf("inbound limits soft %+v, hard %+v", in.Soft, in.Hard)
		}
		full := uint64(1 << 30)
		add := func(blocks uint64) {
			p.a.plane.mu.Lock()
			p.a.plane.count(tunnelName, out, blocks, 16*blocks, blocks/89)
			p.a.plane.mu.Unlock()
			synctest.Wait()
		}
		add(full - 7)
		if n := len(p.a.seen(Rekeyed)); n != 0 {
			t.Fatal("rekeyed before 2^30 blocks")
		}
		p.a.ping() // 100 bytes are 7 blocks
		got := p.a.seen(Rekeyed)
		if len(got) != 1 || got[0].Trigger != ByBlocks || got[0].Triggered.Out.Blocks != full {
			t.Fatalf("at 2^30 blocks: %+v", got)
		}
	})
}

func TestHardLimitOfVolume(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		trigger Trigger
		limits  Limits
		packets int
	}{
		{ByPackets, Limits{Packets: 10}, 40},
		{ByBytes, Limits{Bytes: 1000}, 40},
		{ByBlocks, Limits{Blocks: 70}, 40},
	} {
		t.Run(string(tt.trigger), func(t *testing.T) {
			t.Parallel()
			bubble(t, options{a: tt.limits}, func(t *testing.T, p *pair) {
				p.establish()
				p.over(lost)
				for range tt.packets {
					p.a.ping()
					time.Sleep(10 * time.Millisecond)
				}
				for range 10 {
					if _, err := p.a.plane.send(tunnelName, 100); !errors.Is(err, errExpired) {
						t.Fatalf("beyond the hard limit: %v", err)
					}
				}
				expired := p.a.seen(Expired)
				if len(expired) != 1 || expired[0].Trigger != tt.trigger || expired[0].Old != (SPIPair{Out: p.a.tunnel.Current().Out}) || expired[0].Replaced.Out.Packets != 40 {
					t.Errorf("expired: %+v", expired)
				}
				p.b.ping() // the other direction is not spent
				time.Sleep(time.Minute)
				p.over(nil)
				time.Sleep(time.Minute)
				p.steady()
			})
		})
	}
}

func TestHardLimitOfTime(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		p.a.plane.lenient, p.b.plane.lenient = true, true
		start, old := time.Now(), p.a.tunnel.Current()
		p.over(lost)
		time.Sleep(DefaultTime + DefaultTime/4 - time.Millisecond)
		p.pingBoth()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		for _, e := range p.ends() {
			if in, out := e.plane.installed(tunnelName); len(in)+len(out) != 0 {
				t.Errorf("%s: in %x out %x are left", e.name, in, out)
			}
			if _, err := e.plane.send(tunnelName, 1); !errors.Is(err, errNoSA) {
				t.Errorf("%s beyond the hard limit: %v", e.name, err)
			}
			if e.tunnel.Current() != (SPIPair{}) {
				t.Errorf("%s: current %x", e.name, e.tunnel.Current())
			}
		}
		if got := p.a.seen(Expired); len(got) != 1 || got[0].Trigger != ByTime || got[0].Old != old || got[0].At.Sub(start) != 12*time.Minute+30*time.Second {
			t.Errorf("expired: %+v", got)
		}
		time.Sleep(time.Hour)
		if len(p.a.seen(Expired)) != 1 {
			t.Error("expired more than once")
		}
		p.over(nil)
		time.Sleep(time.Minute)
		p.steady()
		if got := p.a.seen(Established); len(got) != 2 {
			t.Errorf("established: %+v", got)
		}
	})
}

func TestExpiriesWhileTheDataplaneIsBusy(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		spi := p.a.tunnel.Current().Out
		p.a.plane.fail = func(op string) error {
			if op == "AddInbound" {
				for range 3 * cap(p.a.plane.expiries) { // more than there is room for
					p.a.plane.expiries <- Expiry{tunnelName, spi, ByBytes, false}
				}
			}
			return nil
		}
		if err := p.a.tunnel.Rekey(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestHardLimitInDoubt(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		start := time.Now()
		p.over(func(m message, deliver func()) {
			if m.kind != "bye" {
				deliver()
			}
		})
		time.Sleep(time.Minute)
		if err := p.a.tunnel.Rekey(t.Context()); err == nil {
			t.Fatal("no error")
		}
		p.over(lost)
		p.a.plane.lenient, p.b.plane.lenient = true, true
		time.Sleep(time.Until(start.Add(DefaultTime + DefaultTime/4 - time.Millisecond)))
		p.pingBoth()
		if in, _ := p.a.plane.installed(tunnelName); len(in) < 2 {
			t.Errorf("A in doubt has inbound %x", in)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if in, out := p.a.plane.installed(tunnelName); len(in)+len(out) != 0 {
			t.Errorf("A has in %x, out %x beyond the hard limit", in, out)
		}
		p.over(nil)
		time.Sleep(time.Minute)
		p.steady()
	})
}

// A packet that finds no SA begins an exchange where that is wanted, which is tried until it completes, and nowhere else.
func TestTrafficBegins(t *testing.T) {
	t.Parallel()
	bubble(t, options{onTraffic: true}, func(t *testing.T, p *pair) {
		p.b.plane.expiries <- Expiry{Tunnel: tunnelName, Trigger: ByTraffic}
		time.Sleep(settled)
		if got := p.b.tunnel.Current(); got != (SPIPair{}) {
			t.Fatalf("B was not to begin, and has %+v", got)
		}
		p.over(lost)
		p.a.plane.expiries <- Expiry{Tunnel: tunnelName, Trigger: ByTraffic}
		time.Sleep(2 * time.Second)
		p.over(nil)
		time.Sleep(time.Minute)
		p.steady()
		got := p.a.seen(Established)
		if len(got) != 1 || got[0].Trigger != ByTraffic || !got[0].Initiator {
			t.Fatalf("%+v", got)
		}
		// One that comes late, when there is an SA, changes nothing.
		p.a.plane.expiries <- Expiry{Tunnel: tunnelName, Trigger: ByTraffic}
		time.Sleep(settled)
		if got := p.a.seen(Rekeyed); len(got) != 0 {
			t.Errorf("%+v", got)
		}
	})
}
