package ipsec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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

// The receiver of an SA begins an eighth later if its sender does not, and each limit begins only one exchange however

// many expiries tell of it.

// A limit that the new SAs reach while their exchange is not over yet is served by the next exchange.

// Ten minutes of a clock that is moved by hand: nothing at 9m59.999s, an exchange at 10m, one only.

// Two clocks that are moved one after the other, as in a lab, make one rekey, whichever is moved first.

// The end that answered begins an eighth later when the one that began is gone.

// The default of 2^30 blocks by the arithmetic of counters.

// Beyond a hard limit nothing leaves; the tunnel says so, goes on trying, and comes back.

// What each end has after an exchange that broke at each of its messages, and that nothing is lost.

// The first exchange leaves nothing behind when it breaks, and is not tried again.

// Without an acknowledgement of done, one that is lost with its connection is healed by the responder within the

// grace.

// A dataplane that refuses leaves the old SAs in use.

// Pauses double up to a bound, differ by chance, and are the same for the same seed; the two ends differ.

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

// An exchange that gave way to the peer's, or whose demand was withdrawn, installs nothing, even if it goes on to its

// end because its Keyer does not listen.

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

// An exchange that ends well while Close waits for it leaves no timer.
func TestSuccessDuringClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, options{})
		p.establish()
		p.a.use(keyerFunc(func(_ context.Context, proposal Proposal, install func(*Keys) error) error {
			c := &conn{id: 1000}
			if err := p.a.install(install, c.keys(true, proposal.SPI, 0x7777)); err != nil {
				return err
			}
			time.Sleep(time.Second) // keeps Close waiting
			return nil
		}))
		p.a.plane.lenient, p.b.plane.lenient = true, true
		go p.a.tunnel.Rekey(t.Context())
		synctest.Wait()
		if len(p.a.tunnel.held) == 0 {
			t.Error("the test is not where it should be")
		}
		p.close()
		time.Sleep(time.Hour) // an event would panic, for the stream is closed
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

// A success makes the next failure the first one again.

// A demand does not wait for the pause between attempts.

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
	for _, value := range []any{k, *k, k.In, &k.In, []SA{k.In}} {
		if said, err := json.Marshal(value); err != nil || strings.Contains(string(said), "165,165") || strings.Contains(string(said), "paWl") {
			t.Errorf("JSON of %T prints keys: %s, %v", value, said, err)
		}
	}
	k.Wipe()
	if k.In.Key != [32]byte{} || k.Out.Key != [32]byte{} {
		t.Error("Wipe left a key")
	}
}
