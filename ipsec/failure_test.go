package ipsec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

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

// That the peer gave its exchange up is no failure as long as none of its keys is installed; afterwards, and where this end
// began, it is.
func TestPeerAbandons(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, p *pair) {
		p.establish()
		old := p.a.tunnel.Current()
		over := fmt.Errorf("answer: %w", ErrAbandoned)
		for i, installed := range []bool{false, true} {
			r, err := p.a.tunnel.Accept(0x7777 + uint32(i))
			if err != nil {
				t.Fatal(err)
			}
			if installed {
				c := &conn{id: 1000}
				if err := p.a.install(r.Install, c.keys(false, r.SPI(), 0x7777+uint32(i))); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Finish(over); !errors.Is(err, ErrAbandoned) {
				t.Errorf("Finish: %v", err)
			}
			if n := len(p.a.seen(Failed)); (n == 1) != installed || n > 1 {
				t.Errorf("installed %v: %d failures are told", installed, n)
			}
			if p.a.tunnel.Current() != old {
				t.Errorf("installed %v: other SAs are in use", installed)
			}
		}
		p.b.use(keyerFunc(func(context.Context, Proposal, func(*Keys) error) error { return over }))
		if err := p.b.tunnel.Rekey(t.Context()); !errors.Is(err, ErrAbandoned) {
			t.Errorf("the initiator says %v", err)
		}
		if len(p.b.seen(Failed)) != 1 {
			t.Error("the initiator's failure is not told")
		}
		p.b.use(nil)
		time.Sleep(time.Minute)
		p.steady()
	})
}

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
