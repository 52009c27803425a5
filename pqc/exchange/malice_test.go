package exchange_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

// Messages, as exchangetest.Flip counts them.
const (
	proposal = 1 + iota
	offer
	answer
	confirmation
	done
)

// tampered runs an exchange in which one side says something else than it means, in message number at. Time is fake,
// so that waiting for bytes that never come costs nothing.
func tampered(t *testing.T, cfg exchange.Config, at byte, f func([]byte) []byte, check func(t *testing.T, r exchangetest.Result)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		initiator, responder := pair(t, cfg)
		tamper := func(m []byte) []byte {
			if m[0] == at {
				return f(bytes.Clone(m))
			}
			return m
		}
		initiator.Config.Tamper, responder.Config.Tamper = tamper, tamper
		a, b := net.Pipe()
		r := exchangetest.Run(context.Background(), initiator, responder, a, b)
		check(t, r)
		r.Wipe()
	})
}

// broken says that the side that message number at was for has an error, and the other one too where it can know: the
// initiator's part ends with the sending of done.
func broken(t *testing.T, at byte, r exchangetest.Result) {
	t.Helper()
	if r.ResponderErr == nil {
		t.Error("responder has no error")
	}
	if at != done && r.InitiatorErr == nil {
		t.Error("initiator has no error")
	}
	if at != done && r.Initiator != nil {
		t.Error("initiator has a session")
	}
	if at < confirmation && r.Responder != nil {
		t.Error("responder has a session")
	}
}

func TestTamperedHeaders(t *testing.T) {
	t.Parallel()
	for at := byte(proposal); at <= done; at++ {
		for offset := range 4 {
			for bit := range 8 {
				t.Run(fmt.Sprintf("message %d/byte %d/bit %d", at, offset, bit), func(t *testing.T) {
					t.Parallel()
					tampered(t, exchange.Config{Suites: anySuite(t), Mutual: true}, at, exchangetest.Flip(at, offset, 1<<bit), func(t *testing.T, r exchangetest.Result) {
						broken(t, at, r)
					})
				})
			}
		}
	}
}

// TestTamperedBodies goes through TLS with a sample of what TestEachByteMatters tries in full.
func TestTamperedBodies(t *testing.T) {
	t.Parallel()
	for at := byte(proposal); at <= done; at++ {
		for _, where := range []float64{0, 0.1, 0.3, 0.5, 0.7, 0.9, 1} {
			t.Run(fmt.Sprintf("message %d at %v", at, where), func(t *testing.T) {
				t.Parallel()
				tampered(t, exchange.Config{Suites: anySuite(t)}, at, func(m []byte) []byte {
					m[4+int(where*float64(len(m)-5))] ^= 0x10
					return m
				}, func(t *testing.T, r exchangetest.Result) { broken(t, at, r) })
			})
		}
	}
}

func TestTamperedStream(t *testing.T) {
	t.Parallel()
	var earlier [done + 1][]byte // messages of another exchange
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	record := func(m []byte) []byte { earlier[m[0]] = bytes.Clone(m); return m }
	initiator.Config.Tamper, responder.Config.Tamper = record, record
	agreed(t, run(t, initiator, responder))

	for name, f := range map[string]func(at byte, m []byte) []byte{
		"nothing":          func(byte, []byte) []byte { return nil },
		"half":             func(_ byte, m []byte) []byte { return m[:len(m)/2] },
		"all but one byte": func(_ byte, m []byte) []byte { return m[:len(m)-1] },
		"header only":      func(_ byte, m []byte) []byte { return m[:4] },
		"part of a header": func(_ byte, m []byte) []byte { return m[:2] },
		"replayed":         func(at byte, _ []byte) []byte { return earlier[at] },
		"the next message": func(at byte, _ []byte) []byte { return earlier[at%done+1] },
		"the one before":   func(at byte, _ []byte) []byte { return earlier[(at+done-2)%done+1] },
		"empty":            func(at byte, _ []byte) []byte { return []byte{at, 0, 0, 0} },
		"16 MiB announced": func(at byte, m []byte) []byte { return append([]byte{at, 0xff, 0xff, 0xff}, m[4:]...) },
		"unknown type":     func(_ byte, m []byte) []byte { m[0] = 77; return m },
		"type 0":           func(_ byte, m []byte) []byte { m[0] = 0; return m },
		"alert, unknown":   func(byte, []byte) []byte { return []byte{255, 0, 0, 1, 99} },
		"alert, busy":      func(byte, []byte) []byte { return []byte{255, 0, 0, 1, 1} },
		"alert, long":      func(byte, []byte) []byte { return append([]byte{255, 0, 1, 0}, make([]byte, 256)...) },
		"alert, empty":     func(byte, []byte) []byte { return []byte{255, 0, 0, 0} },
		"random": func(at byte, m []byte) []byte {
			return append(m[:4], bytes.Repeat([]byte{0xa5, 0x5a, at}, len(m))[:len(m)-4]...)
		},
		"zeros":            func(at byte, m []byte) []byte { clear(m[4:]); return m },
		"ones":             func(at byte, m []byte) []byte { return append(m[:4], bytes.Repeat([]byte{0xff}, len(m)-4)...) },
		"trailing in body": func(_ byte, m []byte) []byte { m[3]++; return append(m, 0) },
	} {
		for at := byte(proposal); at <= done; at++ {
			t.Run(fmt.Sprintf("%s/message %d", name, at), func(t *testing.T) {
				t.Parallel()
				var start time.Time // of the bubble's clock
				tampered(t, exchange.Config{Suites: anySuite(t)}, at, func(m []byte) []byte { start = time.Now(); return f(at, m) }, func(t *testing.T, r exchangetest.Result) {
					broken(t, at, r)
					// Too long is refused by its header alone, not when the bytes fail to come.
					if took := time.Since(start); name == "16 MiB announced" && at != done && took != 0 {
						t.Errorf("took %v", took)
					}
				})
			})
		}
	}
}

// TestTwice sends a message twice: the second copy comes where another message is due.
func TestTwice(t *testing.T) {
	t.Parallel()
	for at := byte(proposal); at <= confirmation; at++ { // a second done comes when nobody listens
		tampered(t, exchange.Config{Suites: anySuite(t)}, at, func(m []byte) []byte { return append(m, m...) }, func(t *testing.T, r exchangetest.Result) {
			// The second copy is found one step after the first was taken; that of a confirmation never, as the
			// initiator has nothing more to receive, and it harms nobody.
			if at < confirmation && r.ResponderErr == nil {
				t.Errorf("message %d: responder has no error", at)
			}
			if at < answer && r.InitiatorErr == nil {
				t.Errorf("message %d: initiator has no error", at)
			}
		})
	}
}

// TestSilence: a peer that stops talking is given the deadline and no more, at each step, and is told.
func TestSilence(t *testing.T) {
	t.Parallel()
	for _, deadline := range []time.Duration{0, 200 * time.Millisecond} {
		for at := byte(proposal); at <= confirmation; at++ {
			t.Run(fmt.Sprintf("message %d/deadline %v", at, deadline), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
					silent := func(m []byte) []byte {
						if m[0] == at {
							return nil
						}
						return m
					}
					// The silent side waits longer than the other, so that it is the other that gives up.
					victim, quiet := &initiator, &responder
					if at%2 == 1 {
						victim, quiet = quiet, victim
					}
					quiet.Config.Tamper = silent
					victim.Endpoint.Deadline, quiet.Endpoint.Deadline = deadline, time.Hour
					want := deadline
					if want == 0 {
						want = exchange.DefaultDeadline
					}
					start := time.Now()
					a, b := net.Pipe()
					r := exchangetest.Run(context.Background(), initiator, responder, a, b)
					mine, theirs := r.InitiatorErr, r.ResponderErr
					if victim == &responder {
						mine, theirs = theirs, mine
					}
					var e *exchange.Error
					if !errors.As(mine, &e) || e.Alert != exchange.Timeout || e.Remote || !errors.Is(mine, os.ErrDeadlineExceeded) {
						t.Errorf("victim: %v", mine)
					}
					if !errors.As(theirs, &e) || e.Alert != exchange.Timeout || !e.Remote {
						t.Errorf("silent side: %v", theirs)
					}
					if took := time.Since(start); took < want || took > want+2*time.Second {
						t.Errorf("took %v, want %v", took, want)
					}
					r.Wipe()
				})
			})
		}
	}
}

// TestNeverDone: an initiator that got the responder's confirmation and then does not say that its own SA stands.
func TestNeverDone(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(context.CancelFunc){"deadline": func(context.CancelFunc) {}, "cancelled": func(cancel context.CancelFunc) { cancel() }} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
			a, b := net.Pipe()
			result := make(chan error)
			go func() {
				s, err := exchange.Respond(ctx, b, responder.Endpoint, accept(responder.Config))
				if err == nil {
					err = s.Confirm(ctx, nil)
				}
				result <- err
			}()
			s, err := exchange.Initiate(context.Background(), a, initiator.Endpoint, initiator.Config, exchangetest.Proposal())
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			want, after := exchange.Timeout, exchange.DefaultDeadline
			if time.AfterFunc(time.Second, func() { stop(cancel) }); name == "cancelled" {
				want, after = exchange.Cancelled, time.Second
			}
			err = <-result
			var e *exchange.Error
			if !errors.As(err, &e) || e.Alert != want || e.Remote || e.Step != "done" {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(start); took < after || took > after+2*time.Second {
				t.Errorf("%s: took %v", name, took)
			}
			s.Close()
			s.Wipe()
		})
	}
}

// TestSilentTCP: a peer that connects and says nothing, or reads nothing, or speaks a byte a second.
func TestSilentTCP(t *testing.T) {
	t.Parallel()
	for name, peer := range map[string]func(net.Conn){
		"deaf":   func(net.Conn) {},
		"silent": func(c net.Conn) { io.Copy(io.Discard, c) },
		"slow": func(c net.Conn) {
			go io.Copy(io.Discard, c)
			for _, b := range append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 1000)...) { // a TLS record of 16 KiB
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, initiating := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
					a, b := net.Pipe()
					var wg sync.WaitGroup
					defer wg.Wait()
					wg.Go(func() { peer(b) })
					start := time.Now()
					var err error
					if initiating {
						_, err = exchange.Initiate(context.Background(), a, initiator.Endpoint, initiator.Config, exchangetest.Proposal())
					} else {
						_, err = exchange.Respond(context.Background(), a, responder.Endpoint, accept(responder.Config))
					}
					if !errors.Is(err, exchange.Timeout) {
						t.Errorf("initiating %v: %v", initiating, err)
					}
					if took := time.Since(start); took > exchange.DefaultDeadline+2*time.Second {
						t.Errorf("initiating %v: took %v", initiating, took)
					}
					b.Close()
				})
			}
		})
	}
}

// TestCancel ends the context at each step; the peer is told.
func TestCancel(t *testing.T) {
	t.Parallel()
	cause := errors.New("the lab goes down")
	for at := byte(proposal); at <= confirmation; at++ {
		t.Run(fmt.Sprintf("message %d", at), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
				initiator.Endpoint.Deadline, responder.Endpoint.Deadline = time.Hour, time.Hour
				silent := func(m []byte) []byte {
					if m[0] == at {
						return nil
					}
					return m
				}
				initiator.Config.Tamper, responder.Config.Tamper = silent, silent
				ctx, cancel := context.WithCancelCause(context.Background())
				time.AfterFunc(time.Minute, func() { cancel(cause) })
				start := time.Now()
				a, b := net.Pipe()
				r := exchangetest.Run(ctx, initiator, responder, a, b)
				broken(t, at, r)
				if !errors.Is(r.ResponderErr, exchange.Cancelled) || !errors.Is(r.InitiatorErr, exchange.Cancelled) {
					t.Errorf("initiator: %v, responder: %v", r.InitiatorErr, r.ResponderErr)
				}
				if !errors.Is(r.ResponderErr, cause) && !errors.Is(r.InitiatorErr, cause) {
					t.Errorf("nobody knows the cause: %v, %v", r.InitiatorErr, r.ResponderErr)
				}
				if took := time.Since(start); took < time.Minute || took > time.Minute+3*time.Second {
					t.Errorf("took %v", took)
				}
				r.Wipe()
			})
		})
	}
}

// TestEndless: a peer that holds a valid certificate sends without end, and is cut off after a bounded number of bytes.
func TestEndless(t *testing.T) {
	t.Parallel()
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	for name, chunk := range map[string][]byte{
		"a proposal that never ends": append([]byte{1, 0xff, 0xff, 0xff}, make([]byte, 1<<14)...),
		"zeros":                      make([]byte, 1<<14),
		"alerts":                     bytes.Repeat([]byte{255, 0, 0, 1, 99}, 3000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, err := exchangetest.Loopback()
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan int)
			go func() {
				n := 0
				defer func() { a.Close(); sent <- n }()
				c := tls.Client(a, &tls.Config{Certificates: []tls.Certificate{initiator.Endpoint.Certificate}, InsecureSkipVerify: true, NextProtos: []string{exchange.ALPN}})
				for {
					m, err := c.Write(chunk)
					if n += m; err != nil {
						return
					}
				}
			}()
			if _, err := exchange.Respond(context.Background(), b, responder.Endpoint, accept(responder.Config)); err == nil {
				t.Error("no error")
			}
			<-sent
		})
	}
}

// TestEndlessHandshake has no valid certificate: it announces a handshake message of 16 MiB and sends it.
func TestEndlessHandshake(t *testing.T) {
	t.Parallel()
	_, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	a, b, err := exchangetest.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer a.Close()
		// Handshake records of a ClientHello that claims 16 MiB.
		record := append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 1<<14)...)
		copy(record[5:], []byte{1, 0xff, 0xff, 0xff})
		for {
			if _, err := a.Write(record); err != nil {
				return
			}
		}
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := exchange.Respond(context.Background(), b, responder.Endpoint, accept(responder.Config)); err == nil {
		t.Error("no error")
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 { // other tests run beside this one
		t.Errorf("%d bytes allocated", grown)
	}
}

// TestRelay: a man in the middle who has stolen the keys of both certificates and passes on every byte is found out by
// the channel binding, whatever the identities are.
func TestRelay(t *testing.T) {
	t.Parallel()
	for _, pinned := range []bool{false, true} {
		for _, mutual := range []bool{false, true} {
			initiator, responder := pair(t, exchange.Config{Suites: anySuite(t), Mutual: mutual})
			if pinned {
				if err := exchangetest.Pinned(&initiator, &responder); err != nil {
					t.Fatal(err)
				}
			}
			a, toInitiator, err := exchangetest.Loopback()
			if err != nil {
				t.Fatal(err)
			}
			toResponder, b, err := exchangetest.Loopback()
			if err != nil {
				t.Fatal(err)
			}
			type passed struct {
				there, back int64
				err         error
			}
			relay := make(chan passed)
			go func() {
				there, back, err := exchangetest.Relay(context.Background(), toInitiator, toResponder, responder.Endpoint.Certificate, initiator.Endpoint.Certificate)
				relay <- passed{there, back, err}
			}()
			r := exchangetest.Run(context.Background(), initiator, responder, a, b)
			neither(t, r)
			if !errors.Is(r.InitiatorErr, exchange.BadSignature) {
				t.Errorf("pinned=%v: initiator: %v", pinned, r.InitiatorErr)
			}
			if p := <-relay; p.err != nil || p.there == 0 || p.back < 2000 {
				t.Errorf("the relay did not do its work: %+v", p)
			}
		}
	}
}

// TestNothingGrows runs exchanges that succeed and that fail, and looks for goroutines and descriptors that stay. It
// is not parallel, so that there are no others.
func TestNothingGrows(t *testing.T) {
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	round := func() {
		agreed(t, run(t, initiator, responder))
		for at := byte(proposal); at <= done; at++ {
			i, s := initiator, responder
			i.Config.Tamper = exchangetest.Flip(at, 5, 1)
			s.Config.Tamper = exchangetest.Flip(at, 5, 1)
			if r := run(t, i, s); r.ResponderErr == nil {
				t.Fatal("no error")
			}
		}
		stranger := responder
		stranger.Endpoint.Certificate = newIdentity(t)
		neither(t, run(t, initiator, stranger))
	}
	round()
	goroutines, descriptors := runtime.NumGoroutine(), openFiles(t)
	for range 10 {
		round()
	}
	deadline := time.Now().Add(2 * time.Minute)
	for runtime.NumGoroutine() > goroutines || openFiles(t) > descriptors {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, were %d; %d descriptors, were %d", runtime.NumGoroutine(), goroutines, openFiles(t), descriptors)
		}
		runtime.Gosched()
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
