package exchange

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pqlab/pqc"
)

// writes counts the segments that a side sends.
type writes struct {
	net.Conn
	n int
}

func (w *writes) Write(b []byte) (int, error) {
	w.n++
	return w.Conn.Write(b)
}

// both runs an exchange with the suite over connections of the test's making.
func both(t *testing.T, x, y net.Conn, suite pqc.Suite, change func(endpoints *[2]Endpoint, configs *[2]Config)) (sessions [2]*Session, errs [2]error) {
	t.Helper()
	var endpoints [2]Endpoint
	for i, name := range []string{"initiator", "responder"} {
		identity, err := NewIdentity(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		endpoints[i].Certificate = identity
	}
	configs := [2]Config{
		{Suites: []pqc.Suite{suite}, Mutual: true, Peer: Peer{Pin: PinOf(endpoints[1].Certificate.Leaf)}},
		{Suites: []pqc.Suite{suite}, Mutual: true, Peer: Peer{Pin: PinOf(endpoints[0].Certificate.Leaf)}},
	}
	change(&endpoints, &configs)
	var wg sync.WaitGroup
	wg.Go(func() {
		sessions[1], errs[1] = Respond(t.Context(), y, endpoints[1], func(Hello) (Config, Accept, error) { return configs[1], duoAccept, nil })
		if errs[1] == nil {
			errs[1] = sessions[1].Confirm(t.Context(), nil)
		}
	})
	sessions[0], errs[0] = Initiate(t.Context(), x, endpoints[0], configs[0], Proposal{Tunnel: "t", SPI: 256})
	if errs[0] == nil {
		errs[0] = sessions[0].Done(t.Context())
	}
	wg.Wait()
	return sessions, errs
}

// TestSegments: each side sends once before it waits. The initiator's last TLS flight goes with its proposal.
func TestSegments(t *testing.T) {
	t.Parallel()
	x, y := net.Pipe()
	a, b := &writes{Conn: x}, &writes{Conn: y}
	_, errs := both(t, a, b, mustSuite(t, "dilithium3+kyber768"), func(*[2]Endpoint, *[2]Config) {})
	if errs != [2]error{} {
		t.Fatal(errs)
	}
	if a.n != 4 { // client hello; certificate and proposal; answer; done
		t.Errorf("the initiator wrote %d times", a.n)
	}
	if b.n != 4 { // TLS; offer; confirmation; end
		t.Errorf("the responder wrote %d times", b.n)
	}
}

// TestHeldAlert: an initiator that does not trust the responder's certificate says so, though its TLS holds back what it
// writes.
func TestHeldAlert(t *testing.T) {
	t.Parallel()
	x, y := net.Pipe()
	_, errs := both(t, x, y, mustSuite(t, "mldsa44+mlkem512"), func(_ *[2]Endpoint, c *[2]Config) { c[0].Peer.Pin[0] ^= 1 })
	var told *net.OpError // what crypto/tls makes of the peer's alert
	if !errors.Is(errs[0], ErrUntrusted) || !errors.As(errs[1], &told) || told.Op != "remote error" {
		t.Errorf("initiator: %v, responder: %v", errs[0], errs[1])
	}
}

// TestMeterHolds: what is held goes out once, in order, and is counted when it does.
func TestMeterHolds(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(*meter){
		"with the next writing":   func(m *meter) { m.hold = false; m.Write([]byte("c")) },
		"before the next reading": func(m *meter) { m.Write([]byte("c")); go m.Read(make([]byte, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, y := net.Pipe()
			defer x.Close()
			w := &writes{Conn: x}
			var traffic Traffic
			m := &meter{Conn: w, traffic: &traffic, hold: true}
			for _, b := range []string{"a", "b"} {
				if n, err := m.Write([]byte(b)); n != 1 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
			}
			if w.n != 0 || traffic.Sent != 0 {
				t.Errorf("%d bytes in %d pieces were not held", traffic.Sent, w.n)
			}
			go send(m)
			got := make([]byte, 4)
			n, err := y.Read(got)
			if string(got[:n]) != "abc" || err != nil {
				t.Errorf("%q, %v", got[:n], err)
			}
		})
	}
}

// deadlines keeps when a connection was told to give up.
type deadlines struct {
	net.Conn
	set []time.Time
}

func (d *deadlines) SetDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return d.Conn.SetDeadline(t)
}

// TestStep: a step has its time, less at most a 64th; a deadline that is not set is moved.
func TestStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, y := net.Pipe()
		defer y.Close()
		d := &deadlines{Conn: x}
		c := newChannel(d, &Endpoint{Deadline: 64 * time.Second}, new(Traffic))
		leave := c.enter(t.Context())
		step := func(what string, moves bool) {
			t.Helper()
			before := len(d.set)
			if err := c.step(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if moved := len(d.set) > before; moved != moves || moved && !d.set[before].Equal(time.Now().Add(c.deadline)) {
				t.Errorf("%s: deadlines %v at %v", what, d.set[before:], time.Now())
			}
		}
		step("the first", true)
		time.Sleep(time.Second)
		step("a 64th later", false)
		time.Sleep(time.Nanosecond)
		step("more than a 64th later", true)
		c.setDeadline(8 * time.Second)
		step("with less time", true)
		time.Sleep(9 * time.Second)
		step("after the deadline", true)
		leave()
		ctx, cancel := context.WithCancel(t.Context())
		leave = c.enter(ctx)
		cancel()
		synctest.Wait()
		if err := c.step(); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		leave()
		leave = c.enter(t.Context())
		step("after a call that was cancelled", true)
		leave()
	})
}

// TestStopwatch: every step is measured with it, from a reading to a reading.
func TestStopwatch(t *testing.T) {
	t.Parallel()
	x, y := net.Pipe()
	sessions, errs := both(t, x, y, mustSuite(t, "mldsa44+mlkem512"), func(e *[2]Endpoint, _ *[2]Config) {
		for i := range e {
			at := time.Duration(0)
			e[i].Stopwatch = func() time.Duration { at += time.Hour; return at }
		}
	})
	if errs != [2]error{} {
		t.Fatal(errs)
	}
	for i, want := range []Timings{
		{TLS: 1, SignatureKeygen: 1, Sign: 1, Verify: 1, Encaps: 1, Combine: 1},
		{TLS: 1, SignatureKeygen: 1, KEMKeygen: 1, Sign: 1, Verify: 1, Decaps: 1, Combine: 1},
	} {
		got := sessions[i].Timings
		if got.Total <= 0 || got.Total >= time.Hour {
			t.Errorf("in all %v, want the wall clock's", got.Total)
		}
		got.Total = 0
		for _, d := range []*time.Duration{
			&got.TLS, &got.SignatureKeygen, &got.KEMKeygen, &got.Sign, &got.Verify, &got.Encaps, &got.Decaps, &got.Combine,
		} {
			*d /= time.Hour
		}
		if got != want {
			t.Errorf("side %d: %+v hours, want %+v", i, got, want)
		}
	}
}

// TestAllocations: what an exchange allocates beside TLS and the primitives does not grow unnoticed.
func TestAllocations(t *testing.T) {
	suite := mustSuite(t, "dilithium3+kyber768")
	primitives := testing.AllocsPerRun(20, func() {
		key := newSigningKey(t, suite.Signature)
		signature, err := key.Sign([]byte("message"))
		if err != nil || publicKey(t, key).Verify([]byte("message"), signature) != nil {
			t.Fatal(err)
		}
		d, err := suite.KEM.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		e, err := suite.KEM.ParseEncapsulationKey(d.EncapsulationKey())
		if err != nil {
			t.Fatal(err)
		}
		ciphertext, _, err := e.Encapsulate()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Decapsulate(ciphertext); err != nil {
			t.Fatal(err)
		}
	})
	whole := testing.AllocsPerRun(20, func() { newDuo(t, suite, false, false).messages(t, func(messageType, []byte) {}) })
	if whole-primitives > 180 { // 151 when this was written
		t.Errorf("%v allocations beside the primitives' %v", whole-primitives, primitives)
	}
}
