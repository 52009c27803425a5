package ipsec

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pqlab/internal/clock"
)

// grace after which only one pair is left, and a little.
const settled = DefaultGrace + time.Second

func TestEstablishRekeyClose(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		if _, err := p.a.plane.send(tunnelName, 1); !errors.Is(err, errNoSA) {
			t.Errorf("before keys: %v", err)
		}
		p.establish()
		p.steady()
		first := p.a.tunnel.Current()
		p.establish() // keyed already
		if p.a.tunnel.Current() != first {
			t.Error("Establish rekeyed a tunnel that was keyed")
		}

		before := time.Now()
		if err := p.b.tunnel.Rekey(t.Context()); err != nil {
			t.Fatal(err)
		}
		in, _ := p.b.plane.installed(tunnelName)
		if len(in) != 2 {
			t.Errorf("inbound SAs right after a rekey: %x, want the new and the old one", in)
		}
		time.Sleep(DefaultGrace - time.Millisecond)
		synctest.Wait()
		for _, e := range p.ends() {
			if in, out := e.plane.installed(tunnelName); len(in) != 2 || len(out) != 1 {
				t.Errorf("%s within the grace: in %x out %x", e.name, in, out)
			}
		}
		time.Sleep(time.Millisecond)
		p.steady()
		second := p.a.tunnel.Current()
		if second.In == first.In || second.Out == first.Out {
			t.Errorf("SPIs %x were %x before", second, first)
		}

		for _, e := range p.ends() {
			events := e.seen()
			var kinds []EventKind
			for _, v := range events {
				kinds = append(kinds, v.Kind)
				if v.Tunnel != tunnelName || v.Err != nil {
					t.Errorf("%s: event %+v", e.name, v)
				}
			}
			if want := []EventKind{Established, Rekeyed, Retired}; !slices.Equal(kinds, want) {
				t.Fatalf("%s: events %v, want %v", e.name, kinds, want)
			}
			rekeyed := events[1]
			wantOld, trigger, initiator := first, ByPeer, false
			if e == p.b {
				wantOld, trigger, initiator = SPIPair{first.Out, first.In}, OnDemand, true
			}
			if rekeyed.Old != wantOld || rekeyed.New != e.tunnel.Current() || rekeyed.Trigger != trigger || rekeyed.Initiator != initiator || !rekeyed.At.Equal(before) {
				t.Errorf("%s: rekeyed %+v", e.name, rekeyed)
			}
			if retired := events[2]; retired.Old.In != wantOld.In || retired.At.Sub(before) != DefaultGrace {
				t.Errorf("%s: retired %+v", e.name, retired)
			}
		}

		p.a.plane.lenient = true
		if err := p.a.tunnel.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.a.tunnel.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if err := p.a.tunnel.Rekey(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Rekey after Close: %v", err)
		}
		if _, err := p.a.tunnel.Accept(1000); !errors.Is(err, ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		if _, ok := p.a.plane.tunnels[tunnelName]; ok || p.a.set.Get(tunnelName) != nil {
			t.Error("tunnel is still there after Close")
		}
		if events := p.a.seen(Removed); len(events) != 1 || events[0].Old != second {
			t.Errorf("removed: %+v", events)
		}
	})
}

// Each trigger alone begins exactly one exchange, at the end whose outbound SA reached it, exactly when it is reached.
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

// The receiver of an SA begins an eighth later if its sender does not, and each limit begins only one exchange however
// many expiries tell of it.
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

// A limit that the new SAs reach while their exchange is not over yet is served by the next exchange.
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

// Ten minutes of a clock that is moved by hand: nothing at 9m59.999s, an exchange at 10m, one only.
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

// Two clocks that are moved one after the other, as in a lab, make one rekey, whichever is moved first.
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

// The end that answered begins an eighth later when the one that began is gone.
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

// The default of 2^30 blocks by the arithmetic of counters.
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

// Beyond a hard limit nothing leaves; the tunnel says so, goes on trying, and comes back.
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

// What each end has after an exchange that broke at each of its messages, and that nothing is lost.
func TestExchangeBreaks(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"lost", "reset"} {
		for _, at := range []string{"proposal", "offer", "answer", "confirmation", "done", "bye"} {
			t.Run(how+" "+at, func(t *testing.T) {
				t.Parallel()
				bubble(t, options{}, func(t *testing.T, p *pair) {
					p.establish()
					old := p.a.tunnel.Current()
					broken := 0
					p.over(func(m message, deliver func()) {
						if m.kind == at && broken == 0 {
							broken++
							if how == "reset" {
								m.conn.reset()
							}
							return
						}
						p.pingBoth()
						deliver()
					})
					err := p.a.tunnel.Rekey(t.Context())
					if err == nil || broken != 1 {
						t.Fatalf("broken %d times, error %v", broken, err)
					}
					p.pingBoth()
					if failed := p.a.seen(Failed); len(failed) != 1 || failed[0].Trigger != OnDemand || !failed[0].Initiator || failed[0].Err == nil {
						t.Errorf("A failed: %+v", failed)
					}
					if moved := p.a.tunnel.Current() != old; moved != (at == "done" || at == "bye") {
						t.Errorf("A's SAs replaced: %v", moved)
					}
					if moved := p.b.tunnel.Current() != (SPIPair{old.Out, old.In}); moved != (at == "bye") {
						t.Errorf("B's SAs replaced: %v", moved)
					}
					for range 200 { // the retry comes meanwhile
						time.Sleep(100 * time.Millisecond)
						p.pingBoth()
					}
					p.steady()
					if p.a.tunnel.Current() == old {
						t.Error("not tried again")
					}
				})
			})
		}
	}
}

// The first exchange leaves nothing behind when it breaks, and is not tried again.
func TestEstablishFails(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"lost", "reset"} {
		for _, at := range []string{"proposal", "offer", "answer", "confirmation", "done", "bye"} {
			t.Run(how+" "+at, func(t *testing.T) {
				t.Parallel()
				bubble(t, options{}, func(t *testing.T, p *pair) {
					p.a.plane.lenient, p.b.plane.lenient = true, true
					broken := false
					p.over(func(m message, deliver func()) {
						if m.kind == at && !broken {
							broken = true
							if how == "reset" {
								m.conn.reset()
							}
							return
						}
						deliver()
					})
					if err := p.a.tunnel.Establish(t.Context()); err == nil {
						t.Fatal("no error")
					}
					time.Sleep(time.Minute)
					synctest.Wait()
					for _, e := range p.ends() {
						in, out := e.plane.installed(tunnelName)
						if at == "bye" && e == p.b { // it cannot know
							continue
						}
						if len(in)+len(out)+len(e.set.spis.used) != 0 {
							t.Errorf("%s: in %x out %x are left, %d SPIs taken", e.name, in, out, len(e.set.spis.used))
						}
					}
					if p.conns != 1 {
						t.Errorf("%d exchanges, want 1", p.conns)
					}
					p.establish()
					time.Sleep(settled)
					p.steady()
				})
			})
		}
	}
}

// Without an acknowledgement of done, one that is lost with its connection is healed by the responder within the
// grace.
func TestDoneLostWithoutAcknowledgement(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.noAck = true
		p.establish()
		synctest.Wait()
		broken := false
		p.over(func(m message, deliver func()) {
			if m.kind == "done" && !broken {
				broken = true
				m.conn.reset()
				return
			}
			deliver()
		})
		if err := p.a.tunnel.Rekey(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			p.pingBoth()
			time.Sleep(50 * time.Millisecond)
		}
		p.steady()
	})
}

// A dataplane that refuses leaves the old SAs in use.
func TestDataplaneFails(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	for _, op := range []string{"AddInbound", "SetOutbound"} {
		for _, at := range []string{"A", "B"} {
			t.Run(op+" at "+at, func(t *testing.T) {
				t.Parallel()
				bubble(t, options{}, func(t *testing.T, p *pair) {
					p.establish()
					e := p.a
					if at == "B" {
						e = p.b
					}
					failed := false
					e.plane.fail = func(o string) error {
						if o == op && !failed {
							failed = true
							return refused
						}
						return nil
					}
					if err := p.a.tunnel.Rekey(t.Context()); err == nil || at == "A" && !errors.Is(err, refused) {
						t.Errorf("error %v", err)
					}
					for range 100 {
						p.pingBoth()
						time.Sleep(100 * time.Millisecond)
					}
					p.steady()
				})
			})
		}
	}
	t.Run("AddTunnel", func(t *testing.T) {
		t.Parallel()
		plane, _ := newPlanes()
		plane.fail = func(string) error { return refused }
		set := NewTunnels(plane, nil, nil)
		if _, err := set.Add(Config{Policy: Policy{Tunnel: "x"}, Keyer: &end{}}); !errors.Is(err, refused) {
			t.Errorf("error %v", err)
		}
		if set.Get("x") != nil {
			t.Error("tunnel is there")
		}
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("RemoveTunnel", func(t *testing.T) {
		t.Parallel()
		plane, _ := newPlanes()
		set := NewTunnels(plane, nil, nil)
		if _, err := set.Add(Config{Policy: Policy{Tunnel: "x"}, Keyer: &end{}}); err != nil {
			t.Fatal(err)
		}
		plane.fail = func(string) error { return refused }
		if err := set.Close(); !errors.Is(err, refused) {
			t.Errorf("error %v", err)
		}
		if err := set.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

// Pauses double up to a bound, differ by chance, and are the same for the same seed; the two ends differ.
func TestPauses(t *testing.T) {
	t.Parallel()
	pauses := func(t *testing.T, seed uint64, pick func(*pair) *end) (pauses []time.Duration) {
		bubble(t, options{seed: seed}, func(t *testing.T, p *pair) {
			p.establish()
			p.deadline = time.Second
			p.over(lost)
			go pick(p).tunnel.Rekey(t.Context())
			time.Sleep(2 * time.Minute)
			failed := pick(p).seen(Failed)
			for i := 1; i < len(failed); i++ {
				pauses = append(pauses, failed[i].At.Sub(failed[i-1].At)-p.deadline)
			}
		})
		return pauses
	}
	a := func(p *pair) *end { return p.a }
	b := func(p *pair) *end { return p.b }
	got := pauses(t, 1, a)
	if len(got) < 8 {
		t.Fatalf("pauses %v", got)
	}
	for i, pause := range got {
		most := min(500*time.Millisecond<<i, 15*time.Second)
		if pause > most || pause <= most/2 {
			t.Errorf("pause %d is %v, want %v to %v", i, pause, most/2, most)
		}
	}
	if again := pauses(t, 1, a); !slices.Equal(got, again) {
		t.Errorf("same seed: %v, then %v", got, again)
	}
	if slices.Equal(got, pauses(t, 2, a)) || slices.Equal(got, pauses(t, 1, b)) {
		t.Error("another seed or the other end has the same pauses")
	}
}

// A demand ends with its context, and takes its exchange with it.
func TestDemandWithdrawn(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		old := p.a.tunnel.Current()
		p.over(func(m message, deliver func()) {
			if m.kind == "reset" {
				deliver()
			}
		})
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		if err := p.a.tunnel.Rekey(ctx); err == nil || !strings.Contains(err.Error(), "enough") {
			t.Errorf("error %v", err)
		}
		p.over(nil)
		time.Sleep(time.Minute)
		p.steady()
		if p.a.tunnel.Current() != old || p.conns != 2 {
			t.Errorf("the demand went on: %d exchanges", p.conns)
		}
		// One whose limit is reached meanwhile goes on without the demand.
		p.over(lost)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go p.a.tunnel.Rekey(ctx)
		synctest.Wait()
		p.a.plane.expiries <- Expiry{tunnelName, old.Out, ByBlocks, false}
		time.Sleep(2 * time.Second)
		p.over(nil)
		time.Sleep(time.Minute)
		p.steady()
		if p.a.tunnel.Current() == old {
			t.Error("the limit was forgotten with the demand")
		}
	})
}

// Many demands at both ends at once are served by at most two exchanges.
func TestDemandsJoin(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		p.over(func(m message, deliver func()) { time.AfterFunc(10*time.Millisecond, deliver) })
		var wg sync.WaitGroup
		for range 50 {
			for _, e := range p.ends() {
				wg.Go(func() {
					if err := e.tunnel.Rekey(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		time.Sleep(settled)
		p.steady()
		if n := len(p.a.seen(Rekeyed)); n != 1 {
			t.Errorf("%d rekeys", n)
		}
	})
}

// A peer that began anew without the old SAs is admitted.
func TestPeerRestarts(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		p.a.plane.lenient, p.b.plane.lenient = true, true
		if err := p.b.tunnel.Close(); err != nil {
			t.Fatal(err)
		}
		var err error
		p.b.tunnel, err = p.b.set.Add(Config{Policy: Policy{Tunnel: tunnelName}, Keyer: p.b})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.b.tunnel.Establish(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(settled)
		p.steady()
	})
}

// Close in the middle of an exchange, at either end, leaves nothing; the other end keeps what it had.
func TestCloseDuringAnExchange(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"proposal", "offer", "answer", "confirmation", "done", "bye"} {
		for _, who := range []string{"A", "B"} {
			t.Run(at+" "+who, func(t *testing.T) {
				t.Parallel()
				bubble(t, options{}, func(t *testing.T, p *pair) {
					p.establish()
					e := p.a
					if who == "B" {
						e = p.b
					}
					reached := make(chan func(), 1)
					p.over(func(m message, deliver func()) {
						if m.kind == at && len(reached) == 0 {
							reached <- deliver
							return
						}
						deliver()
					})
					result := make(chan error, 1)
					go func() { result <- p.a.tunnel.Rekey(t.Context()) }()
					deliver := <-reached
					e.plane.lenient, e.peer.plane.lenient = true, true
					var wg sync.WaitGroup
					for range 3 {
						wg.Go(func() {
							if err := e.tunnel.Close(); err != nil {
								t.Error(err)
							}
						})
					}
					wg.Wait()
					deliver()
					time.Sleep(10 * time.Second)
					if who == "A" {
						if err := <-result; !errors.Is(err, ErrClosed) {
							t.Errorf("Rekey: %v", err)
						}
					}
					if in, out := e.plane.installed(tunnelName); len(in)+len(out)+len(e.set.spis.used) != 0 {
						t.Errorf("left: in %x out %x, %d SPIs", in, out, len(e.set.spis.used))
					}
				})
			})
		}
	}
}

func TestThousandRekeysGrowNothing(t *testing.T) {
	// not parallel: it counts goroutines
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		time.Sleep(settled)
		synctest.Wait()
		before := runtime.NumGoroutine()
		for i := range 1000 {
			e := p.a
			if i%3 == 0 {
				e = p.b
			}
			if err := e.tunnel.Rekey(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.pingBoth()
			time.Sleep(100 * time.Millisecond)
		}
		if p.a.plane.mostHeld > 40 { // 3 s of grace at 10 rekeys a second
			t.Errorf("%d inbound SAs at once", p.a.plane.mostHeld)
		}
		time.Sleep(settled)
		p.steady()
		if after := runtime.NumGoroutine(); after > before+10 { // the runtime has some that come and go
			t.Errorf("%d goroutines, %d before", after, before)
		}
		if n := len(p.a.seen(Rekeyed)); n != 1000 {
			t.Errorf("%d rekeys", n)
		}
		p.a.tunnel.mu.Lock()
		defer p.a.tunnel.mu.Unlock()
		if n := len(p.a.tunnel.retiring) + len(p.a.tunnel.held) + len(p.a.tunnel.waiters); n != 0 {
			t.Errorf("%d things are left in the tunnel", n)
		}
	})
}

// Events nobody reads are dropped and counted, and hold nothing up.
func TestEventsNeverBlock(t *testing.T) {
	t.Parallel()
	plane, _ := newPlanes()
	set := NewTunnels(plane, nil, nil)
	for range eventBuffer + 10 {
		set.emit(Event{})
	}
	if n := set.LostEvents(); n != 10 {
		t.Errorf("%d lost, want 10", n)
	}
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range set.Events() {
		n++
	}
	if n != eventBuffer {
		t.Errorf("%d events, want %d", n, eventBuffer)
	}
}

// A dataplane may wait for the reader of its expiries inside a call that a tunnel makes.
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

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		if _, err := p.a.set.Add(Config{Policy: Policy{Tunnel: tunnelName}, Keyer: p.a}); err == nil {
			t.Error("second tunnel of one name")
		}
		if _, err := p.a.set.Add(Config{Policy: Policy{Tunnel: "y"}}); err == nil {
			t.Error("tunnel without a Keyer")
		}
		if p.a.set.Get(tunnelName) != p.a.tunnel {
			t.Error("Get does not find the tunnel")
		}
		if err := p.a.set.Close(); err != nil {
			t.Error(err)
		}
		if _, err := p.a.set.Add(Config{Policy: Policy{Tunnel: "z"}, Keyer: p.a}); !errors.Is(err, ErrClosed) {
			t.Errorf("Add after Close: %v", err)
		}
	})
}

// Keys that would be unsafe are refused, at either end, and nothing of them is left.
func TestUnsafeKeys(t *testing.T) {
	t.Parallel()
	good := func(in, out uint32) *Keys {
		return &Keys{In: SA{SPI: in, Key: [32]byte{1}, Salt: [4]byte{1}}, Out: SA{SPI: out, Key: [32]byte{2}, Salt: [4]byte{2}}}
	}
	for name, spoil := range map[string]func(k *Keys, current SPIPair){
		"other inbound SPI":    func(k *Keys, _ SPIPair) { k.In.SPI++ },
		"reserved SPI":         func(k *Keys, _ SPIPair) { k.Out.SPI = 255 },
		"own new SPI":          func(k *Keys, _ SPIPair) { k.Out.SPI = k.In.SPI },
		"SPI in use, inbound":  func(k *Keys, c SPIPair) { k.Out.SPI = c.In },
		"SPI in use, outbound": func(k *Keys, c SPIPair) { k.Out.SPI = c.Out },
		"one key":              func(k *Keys, _ SPIPair) { k.Out.Key = k.In.Key },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, options{}, func(t *testing.T, p *pair) {
				p.establish()
				old := p.a.tunnel.Current()
				r, err := p.a.tunnel.Accept(0x7777)
				if err != nil {
					t.Fatal(err)
				}
				k := good(r.SPI(), 0x7777)
				spoil(k, old)
				if err := p.a.install(r.Install, k); err == nil {
					t.Error("responder installed")
				}
				if err := r.Finish(nil); err == nil {
					t.Error("responder finished without keys")
				}

				p.a.use(keyerFunc(func(_ context.Context, proposal Proposal, install func(*Keys) error) error {
					if proposal.Replaces != old.In || proposal.Trigger != OnDemand {
						t.Errorf("proposal %+v", proposal)
					}
					k := good(proposal.SPI, 0x8888)
					spoil(k, old)
					return p.a.install(install, k)
				}))
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				if err := p.a.tunnel.Rekey(ctx); err == nil {
					t.Error("initiator installed")
				}
				p.a.use(nil)
				time.Sleep(settled)
				p.steady()
			})
		})
	}
	t.Run("twice, late, and none", func(t *testing.T) {
		t.Parallel()
		bubble(t, options{}, func(t *testing.T, p *pair) {
			p.establish()
			r, err := p.a.tunnel.Accept(0x7777)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Install(good(r.SPI(), 0x7778)); err == nil {
				t.Error("installed keys for an SPI that was not proposed")
			}
			if _, err := p.a.tunnel.Accept(minSPI); !errors.Is(err, ErrBusy) {
				t.Errorf("second exchange before keys: %v", err)
			}
			if err := p.a.install(r.Install, good(r.SPI(), 0x7777)); err != nil {
				t.Fatal(err)
			}
			out := r.exchange.out()
			if out.Key != good(0, 0).Out.Key {
				t.Error("outbound key is not kept until done")
			}
			if err := p.a.install(r.Install, good(r.SPI(), 0x7777)); err == nil {
				t.Error("installed twice")
			}
			if _, err := p.a.tunnel.Accept(0x7779); !errors.Is(err, ErrBusy) {
				t.Errorf("second exchange: %v", err)
			}
			if err := r.Finish(errors.New("broken")); err == nil {
				t.Error("Finish must return the reason")
			}
			if out.Key != [32]byte{} || out.Salt != [4]byte{} {
				t.Error("outbound key is not wiped")
			}
			if err := r.Finish(nil); err != nil {
				t.Errorf("second Finish: %v", err)
			}
			if err := p.a.install(r.Install, good(r.SPI(), 0x7777)); err == nil {
				t.Error("installed after the end")
			}
			for _, spi := range []uint32{0, 255, p.a.tunnel.Current().In, p.a.tunnel.Current().Out} {
				if _, err := p.a.tunnel.Accept(spi); err == nil || errors.Is(err, ErrBusy) {
					t.Errorf("proposal of SPI %#x: %v", spi, err)
				}
			}
			p.b.use(keyerFunc(func(context.Context, Proposal, func(*Keys) error) error { return nil }))
			if err := p.b.tunnel.Rekey(t.Context()); err == nil {
				t.Error("Rekey without keys")
			}
			p.b.use(nil)
			time.Sleep(time.Minute)
			p.steady()
		})
	})
}

// An exchange that gave way to the peer's, or whose demand was withdrawn, installs nothing, even if it goes on to its
// end because its Keyer does not listen.
func TestAbandonedExchangeInstallsNothing(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"gave way", "withdrawn", "closed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			bubble(t, options{}, func(t *testing.T, p *pair) {
				p.establish()
				old := p.a.tunnel.Current()
				outcome := make(chan error, 1)
				p.a.use(keyerFunc(func(ctx context.Context, proposal Proposal, install func(*Keys) error) error {
					time.Sleep(5 * time.Second) // and not ctx.Done
					if ctx.Err() == nil {
						t.Error("the exchange was not cancelled")
					}
					c := &conn{id: 1000}
					err := p.a.install(install, c.keys(true, proposal.SPI, 0x7777))
					outcome <- err
					return err
				}))
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				go p.a.tunnel.Rekey(ctx)
				synctest.Wait()
				want := old
				switch how {
				case "gave way":
					r, err := p.a.tunnel.Accept(minSPI) // the lowest there is
					if err != nil {
						t.Fatal(err)
					}
					defer r.Finish(errors.New("over"))
				case "closed":
					p.a.plane.lenient, p.b.plane.lenient = true, true
					if err := p.a.tunnel.Close(); err != nil {
						t.Error(err)
					}
					if len(outcome) == 0 {
						t.Error("Close did not wait for the exchange")
					}
					want = SPIPair{}
				}
				time.Sleep(10 * time.Second)
				p.a.use(nil)
				if <-outcome == nil {
					t.Error("keys were accepted")
				}
				if now := p.a.tunnel.Current(); now != want {
					t.Errorf("SAs are %x, want %x", now, want)
				}
			})
		})
	}
}

// What arrives while Close waits changes nothing any more.
func TestDoneDuringClose(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		p.a.use(keyerFunc(func(context.Context, Proposal, func(*Keys) error) error {
			time.Sleep(time.Second) // keeps Close waiting
			return errors.New("over")
		}))
		go p.a.tunnel.Rekey(t.Context())
		synctest.Wait()
		r, err := p.a.tunnel.Accept(minSPI)
		if err != nil {
			t.Fatal(err)
		}
		c := &conn{id: 1000}
		if err := p.a.install(r.Install, c.keys(false, r.SPI(), minSPI)); err != nil {
			t.Fatal(err)
		}
		p.a.plane.lenient, p.b.plane.lenient = true, true
		closed := make(chan error, 1)
		go func() { closed <- p.a.tunnel.Close() }()
		synctest.Wait()
		if err := r.Finish(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Finish: %v", err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		p.a.use(nil)
	})
}

// Nothing fires after Close, whatever was to come.
func TestCloseStopsTimers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, options{})
		p.deadline = time.Second
		p.establish()
		if err := p.a.tunnel.Rekey(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.over(lost)
		go p.a.tunnel.Rekey(t.Context())
		time.Sleep(p.deadline) // now there is a retry, a grace, and both limits of time
		synctest.Wait()
		if p.a.tunnel.retry == nil || len(p.a.tunnel.retiring) == 0 {
			t.Error("the test is not where it should be")
		}
		p.close()
		time.Sleep(time.Hour) // an event would panic, for the stream is closed
	})
}

// The hard limit of time of SAs whose replacement is in doubt is their own, and it ends the replacement too.
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

// A success makes the next failure the first one again.
func TestPausesBeginAnew(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		for range 2 {
			p.over(lost)
			go p.a.tunnel.Rekey(t.Context())
			time.Sleep(40 * time.Second)
			p.over(nil)
			time.Sleep(20 * time.Second)
		}
		failed := p.a.seen(Failed)
		first := 0
		for i := 1; i < len(failed); i++ {
			if pause := failed[i].At.Sub(failed[i-1].At) - p.deadline; pause <= firstPause {
				first++
			}
		}
		if first != 2 {
			t.Errorf("%d first pauses, want 2", first)
		}
	})
}

// A demand does not wait for the pause between attempts.
func TestDemandEndsThePause(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		p.over(lost)
		go p.a.tunnel.Rekey(t.Context())
		for failed := 0; failed < 6; failed = len(p.a.seen(Failed)) {
			time.Sleep(time.Millisecond)
		}
		p.over(nil)
		start := time.Now()
		if err := p.a.tunnel.Rekey(t.Context()); err != nil {
			t.Error(err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited %v", waited)
		}
	})
}

type keyerFunc func(context.Context, Proposal, func(*Keys) error) error

func (f keyerFunc) Initiate(ctx context.Context, p Proposal, install func(*Keys) error) error {
	return f(ctx, p, install)
}

func TestNothingPrintsKeys(t *testing.T) {
	t.Parallel()
	k := &Keys{In: SA{SPI: 0x1234}, Out: SA{SPI: 0x5678}}
	for i := range k.In.Key {
		k.In.Key[i], k.Out.Key[i] = 0xa5, 0xa5
	}
	copy(k.In.Salt[:], "\xa5\xa5\xa5\xa5")
	out := func() *SA { return &k.Out }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, value := range []any{k, *k, k.In, &k.In, exchange{out: out}, &Response{exchange: &exchange{out: out}}} {
			said := strings.ToLower(fmt.Sprintf(verb, value))
			for _, secret := range []string{"a5a5", "165 165", "0xa5", "\xa5"} {
				if strings.Contains(said, secret) {
					t.Errorf("%s of %T prints keys: %s", verb, value, said)
				}
			}
		}
	}
	k.Wipe()
	if k.In.Key != [32]byte{} || k.Out.Key != [32]byte{} {
		t.Error("Wipe left a key")
	}
}
