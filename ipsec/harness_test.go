package ipsec

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pqlab/internal/clock"
)

const tunnelName = "t0"

// pair is a tunnel with both its ends, over two model dataplanes and a network of the test's making.
type pair struct {
	t    *testing.T
	a, b *end

	deadline time.Duration // of each step; 0 means 5 s
	noAck    bool          // done is not acknowledged: Initiate returns when it is on its way

	network sync.Mutex // held in calls of carry
	carry   func(m message, deliver func())

	mu    sync.Mutex
	conns int
}

// over makes the network: carry takes one message to its receiver, by calling deliver, or does not. Nil delivers all.
func (p *pair) over(carry func(m message, deliver func())) {
	p.network.Lock()
	defer p.network.Unlock()
	p.carry = carry
}

// lost is the network that is down.
func lost(message, func()) {}

type end struct {
	*pair
	name   string
	plane  *plane
	set    *Tunnels
	tunnel *Tunnel
	peer   *end

	mu     sync.Mutex
	keyer  Keyer // in place of the end itself
	events []Event
	reader sync.WaitGroup
}

type options struct {
	a, b      Limits
	clock     clock.Clock
	grace     time.Duration
	seed      uint64
	onTraffic bool         // of A
	spis      func() *SPIs // of each end
}

// newPair makes both ends; nothing is keyed yet. Everything is taken down when the test ends.
func newPair(t *testing.T, o options) *pair {
	t.Helper()
	p := &pair{t: t, deadline: 5 * time.Second}
	pa, pb := newPlanes()
	p.a = &end{pair: p, name: "A", plane: pa}
	p.b = &end{pair: p, name: "B", plane: pb}
	p.a.peer, p.b.peer = p.b, p.a
	random := rand.New(rand.NewPCG(o.seed, 7))
	for i, e := range []*end{p.a, p.b} {
		spis := &SPIs{Random: rand.New(rand.NewPCG(random.Uint64(), uint64(i))).Uint32}
		if o.spis != nil {
			spis = o.spis()
		}
		e.set = NewTunnels(e.plane, o.clock, spis)
		limits := o.a
		if e == p.b {
			limits = o.b
		}
		var err error
		e.tunnel, err = e.set.Add(Config{
			Policy: Policy{Tunnel: tunnelName, Src: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})},
			Limits: limits, Keyer: e, Grace: o.grace, Seed: o.seed, OnTraffic: o.onTraffic && e == p.a,
		})
		if err != nil {
			t.Fatal(err)
		}
		e.reader.Go(func() {
			for event := range e.set.Events() {
				e.mu.Lock()
				e.events = append(e.events, event)
				e.mu.Unlock()
			}
		})
	}
	return p
}

// close takes both ends down and reports what the planes found wrong.
func (p *pair) close() {
	p.t.Helper()
	for _, e := range p.ends() {
		e.plane.mu.Lock()
		e.plane.lenient = true
		e.plane.mu.Unlock()
	}
	for _, e := range p.ends() {
		if err := e.set.Close(); err != nil {
			p.t.Error(err)
		}
		e.reader.Wait()
		e.plane.check(p.t)
	}
	for _, e := range p.ends() {
		if n := len(e.set.spis.used); n != 0 {
			p.t.Errorf("%s: %d SPIs were not given back", e.name, n)
		}
	}
}

func (p *pair) establish() {
	p.t.Helper()
	if err := p.a.tunnel.Establish(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) ends() []*end { return []*end{p.a, p.b} }

// message is one step of an exchange on its way.
type message struct {
	conn        *conn
	toInitiator bool
	kind        string // proposal, offer, answer, confirmation, done, bye; busy, cancelled; reset
	spi         uint32
}

// conn carries one exchange.
type conn struct {
	pair      *pair
	id        int
	initiator *end
	box       [2]chan message // to the responder, to the initiator
	broken    [2]context.Context
	breakOff  [2]context.CancelFunc
}

func (p *pair) dial(initiator *end) *conn {
	p.mu.Lock()
	p.conns++
	c := &conn{pair: p, id: p.conns, initiator: initiator}
	p.mu.Unlock()
	for i := range c.box {
		c.box[i] = make(chan message, 8)
		c.broken[i], c.breakOff[i] = context.WithCancel(context.Background())
	}
	go initiator.peer.respond(c)
	return c
}

func side(toInitiator bool) int {
	if toInitiator {
		return 1
	}
	return 0
}

func (c *conn) send(toInitiator bool, kind string, spi uint32) {
	m := message{c, toInitiator, kind, spi}
	deliver := func() {
		if kind == "reset" {
			c.breakOff[side(toInitiator)]()
		} else {
			c.box[side(toInitiator)] <- m
		}
	}
	c.pair.network.Lock()
	defer c.pair.network.Unlock()
	if c.pair.carry == nil {
		deliver()
		return
	}
	c.pair.carry(m, deliver)
}

// reset breaks the connection off at both ends at once.
func (c *conn) reset() {
	c.breakOff[0]()
	c.breakOff[1]()
}

var errReset = errors.New("connection reset")

func (c *conn) receive(ctx context.Context, atInitiator bool, kinds ...string) (message, error) {
	timeout := time.NewTimer(c.pair.deadline)
	defer timeout.Stop()
	box := c.box[side(atInitiator)]
	select {
	case m := <-box: // what arrived before the connection broke counts
		return m.of(kinds)
	default:
	}
	select {
	case m := <-box:
		return m.of(kinds)
	case <-c.broken[side(atInitiator)].Done():
		return message{}, errReset
	case <-ctx.Done():
		return message{}, ctx.Err()
	case <-timeout.C:
		return message{}, errors.New("deadline of the step")
	}
}

func (m message) of(kinds []string) (message, error) {
	if !slices.Contains(kinds, m.kind) {
		return m, fmt.Errorf("%s came, want one of %v", m.kind, kinds)
	}
	return m, nil
}

// keys of one side.
func (c *conn) keys(atInitiator bool, in, out uint32) *Keys {
	derive := func(spi uint32, toInitiator bool) SA {
		sa := SA{SPI: spi}
		h := sha256.Sum256(binary.BigEndian.AppendUint32([]byte{byte(c.id >> 8), byte(c.id), byte(side(toInitiator))}, spi))
		copy(sa.Key[:], h[:])
		copy(sa.Salt[:], h[28:])
		return sa
	}
	return &Keys{In: derive(in, atInitiator), Out: derive(out, !atInitiator)}
}

// Initiate makes an end its own Keyer.
func (e *end) Initiate(ctx context.Context, p Proposal, install func(*Keys) error) (err error) {
	e.mu.Lock()
	other := e.keyer
	e.mu.Unlock()
	if other != nil {
		return other.Initiate(ctx, p, install)
	}
	c := e.dial(e)
	defer func() {
		switch {
		case err == nil || errors.Is(err, ErrBusy):
		case errors.Is(err, context.Canceled):
			c.send(false, "cancelled", 0)
		default:
			c.send(false, "reset", 0)
		}
	}()
	c.send(false, "proposal", p.SPI)
	m, err := c.receive(ctx, true, "offer", "busy")
	if err != nil {
		return err
	}
	if m.kind == "busy" {
		return fmt.Errorf("proposal: %w", ErrBusy)
	}
	peer := m.spi
	c.send(false, "answer", 0)
	if _, err := c.receive(ctx, true, "confirmation"); err != nil {
		return err
	}
	if err := e.install(install, c.keys(true, p.SPI, peer)); err != nil {
		return err
	}
	c.send(false, "done", 0)
	if e.noAck {
		return nil
	}
	_, err = c.receive(ctx, true, "bye")
	return err
}

// install checks that the keys are wiped, whatever the outcome.
func (e *end) install(install func(*Keys) error, k *Keys) error {
	err := install(k)
	if k.In.Key != [32]byte{} || k.Out.Key != [32]byte{} || k.In.Salt != [4]byte{} || k.Out.Salt != [4]byte{} {
		e.t.Errorf("%s: keys are not wiped after their use", e.name)
	}
	return err
}

// use makes another Keyer begin the exchanges of an end; nil gives the end its own again.
func (e *end) use(k Keyer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keyer = k
}

func (e *end) respond(c *conn) {
	ctx := context.Background()
	m, err := c.receive(ctx, false, "proposal")
	if err != nil {
		return
	}
	r, err := e.tunnel.Accept(m.spi)
	if err != nil {
		kind := "reset"
		if errors.Is(err, ErrBusy) {
			kind = "busy"
		}
		c.send(true, kind, 0)
		return
	}
	err = func() error {
		c.send(true, "offer", r.SPI())
		if m, err := c.receive(ctx, false, "answer", "cancelled"); err != nil {
			return err
		} else if m.kind == "cancelled" {
			return fmt.Errorf("answer: %w", ErrAbandoned)
		}
		if err := e.install(r.Install, c.keys(false, r.SPI(), m.spi)); err != nil {
			return err
		}
		c.send(true, "confirmation", 0)
		_, err := c.receive(ctx, false, "done")
		return err
	}()
	if r.Finish(err) != nil {
		c.send(true, "reset", 0)
		return
	}
	c.send(true, "bye", 0)
}

// seen gives the events so far of some kinds, of all kinds if none is named.
func (e *end) seen(kinds ...EventKind) (events []Event) {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.events {
		if len(kinds) == 0 || slices.Contains(kinds, event.Kind) {
			events = append(events, event)
		}
	}
	return events
}

// say describes the events of both ends, for a test that fails.
func (p *pair) say() {
	for _, e := range p.ends() {
		for _, v := range e.seen() {
			p.t.Logf("%s %v %s %s initiator=%v old=%x new=%x %v", e.name, v.At.Format("05.000"), v.Kind, v.Trigger, v.Initiator, v.Old, v.New, v.Err)
		}
	}
}

// ping sends a packet from e, which must arrive.
func (e *end) ping() {
	e.t.Helper()
	pkt, err := e.plane.send(tunnelName, 100)
	if err == nil {
		err = e.peer.plane.receive(tunnelName, pkt)
	}
	if err != nil {
		e.t.Errorf("packet from %s: %v", e.name, err)
	}
}

func (p *pair) pingBoth() {
	p.t.Helper()
	p.a.ping()
	p.b.ping()
}

// steady checks that both ends have one pair of SAs, the same, and nothing else; the grace must be over.
func (p *pair) steady() {
	p.t.Helper()
	synctest.Wait()
	ca, cb := p.a.tunnel.Current(), p.b.tunnel.Current()
	if ca.In == 0 || ca.Out == 0 || ca.In != cb.Out || ca.Out != cb.In {
		p.t.Errorf("ends disagree: A %x, B %x", ca, cb)
	}
	for _, e := range p.ends() {
		in, out := e.plane.installed(tunnelName)
		c := e.tunnel.Current()
		if !slices.Equal(in, []uint32{c.In}) || !slices.Equal(out, []uint32{c.Out}) {
			p.t.Errorf("%s has inbound %x, outbound %x installed; in use are %x", e.name, in, out, c)
		}
		if n := len(e.set.spis.used); n != 1 {
			p.t.Errorf("%s: %d SPIs taken, want 1", e.name, n)
		}
	}
	p.pingBoth()
}

// bubble runs f with a pair in a bubble of fake time.
func bubble(t *testing.T, o options, f func(t *testing.T, p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, o)
		defer p.close()
		f(t, p)
		if t.Failed() {
			p.say()
		}
	})
}
