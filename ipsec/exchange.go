package ipsec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// exchange is one key exchange under way. Its fields belong to the tunnel's lock.
type exchange struct {
	initiator bool
	spi, peer uint32 // inbound SPIs: ours, the peer's (0 until it is known)
	trigger   Trigger
	triggered Usage
	began     time.Time // by the machine's clock
	proposal  Proposal  // of the initiator
	cancel    context.CancelFunc

	installed bool       // our inbound SA stands; the initiator's outbound one is in use too
	out       func() *SA // the responder's outbound SA, until done arrives; a function, for fmt looks into all else
	old       SPIPair
	replaced  Usage
	next      Trigger // a limit that the new SAs reached before the exchange was over
}

// begin starts an exchange as the initiator.
func (t *Tunnel) begin() {
	x := &exchange{initiator: true, trigger: t.want, triggered: t.wanted, began: time.Now()}
	spi, err := t.takeSPI(0)
	if err != nil {
		t.fail(x, err)
		return
	}
	x.spi = spi
	x.proposal = Proposal{SPI: spi, Trigger: x.trigger, Replaces: t.in}
	ctx, cancel := context.WithCancel(t.ctx)
	x.cancel = cancel
	t.exchange = x
	t.running.Go(func() { t.initiate(ctx, x) })
}

func (t *Tunnel) initiate(ctx context.Context, x *exchange) {
	err := t.keyer.Initiate(ctx, x.proposal, func(k *Keys) error {
		defer k.Wipe()
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.replace(x, k)
	})
	x.cancel()

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.exchange != x { // it gave way; whoever took it back did the rest
		t.set.spis.Release(x.spi)
		return
	}
	t.exchange = nil
	switch {
	case err == nil && x.installed:
		t.settle(x)
	case err == nil:
		t.set.spis.Release(x.spi)
		t.fail(x, errors.New("key exchange ended without keys"))
	case x.installed:
		t.doubt(fmt.Errorf("peer did not acknowledge that it switched: %w", err), x)
	default:
		t.set.spis.Release(x.spi)
		t.fail(x, err)
	}
}

// replace is the initiator's part of make before break: the responder's inbound SA stands, so ours is installed and
// then the outbound one taken into use.
func (t *Tunnel) replace(x *exchange, k *Keys) error {
	if err := t.mayInstall(x, k); err != nil {
		return err
	}
	if err := t.addInbound(&k.In); err != nil {
		return err
	}
	if err := t.set.dataplane.SetOutbound(t.name, t.limited(&k.Out, t.limits)); err != nil {
		return errors.Join(err, t.set.dataplane.RemoveInbound(t.name, x.spi))
	}
	x.installed = true
	x.peer = k.Out.SPI
	t.switched(x)
	return nil
}

// Response is the responder's part of one exchange. It is not safe for concurrent use.
type Response struct {
	tunnel   *Tunnel
	exchange *exchange
}

// Accept admits an exchange that the peer began, by the SPI in its proposal. Whoever calls it has made sure that the
// peer is the tunnel's, and calls Finish in the end, whatever happens. Until then no other exchange is admitted.
//
// ErrBusy means that the peer should be told to come back later.
func (t *Tunnel) Accept(peerSPI uint32) (*Response, error) {
	x, err := t.admit(peerSPI)
	if err != nil {
		return nil, fmt.Errorf("tunnel %s: %w", t.name, err)
	}
	return &Response{t, x}, nil
}

// SPI is the one to put into the offer.
func (r *Response) SPI() uint32 { return r.exchange.spi }

// Install takes the keys of a verified answer into use for what arrives, and wipes them. The confirmation must not be
// sent before it has returned nil.
func (r *Response) Install(k *Keys) error {
	defer k.Wipe()
	r.tunnel.mu.Lock()
	defer r.tunnel.mu.Unlock()
	if err := r.tunnel.installInbound(r.exchange, k); err != nil {
		return fmt.Errorf("tunnel %s: %w", r.tunnel.name, err)
	}
	return nil
}

// Finish ends the exchange: with nil when done was received, and then the new SAs are in use when it returns nil; with
// the reason when the exchange failed, which it returns. ErrAbandoned, wrapped or not, is no failure before Install. Calls
// after the first return nil and do nothing.
func (r *Response) Finish(err error) error {
	t, x := r.tunnel, r.exchange
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.exchange != x {
		return nil
	}
	t.exchange = nil
	if x.out != nil {
		defer x.out().Wipe()
	}
	if err = t.finishResponse(x, err); err != nil {
		return fmt.Errorf("tunnel %s: %w", t.name, err)
	}
	return nil
}

// admit decides whether an exchange of the peer's may go on.
func (t *Tunnel) admit(peerSPI uint32) (*exchange, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	if own := t.exchange; own != nil {
		// Both ends apply this to the same two numbers, so exactly one of the exchanges goes on. Equal ones are both
		// refused, and come back after different times.
		if !own.initiator || own.installed || own.spi <= peerSPI {
			return nil, ErrBusy
		}
		t.abandon(own)
	}
	if peerSPI < minSPI || t.uses(peerSPI) {
		t.retryLater() // an exchange of ours may have given way to this one
		return nil, fmt.Errorf("peer proposed SPI %#08x, which is reserved or in use", peerSPI)
	}
	spi, err := t.takeSPI(peerSPI)
	if err != nil {
		t.retryLater()
		return nil, err
	}
	t.exchange = &exchange{spi: spi, peer: peerSPI, trigger: ByPeer, triggered: t.usage(), began: time.Now()}
	return t.exchange, nil
}

// installInbound is the responder's first part of make before break: once this stands the confirmation may go out.
func (t *Tunnel) installInbound(x *exchange, k *Keys) error {
	if err := t.mayInstall(x, k); err != nil {
		return err
	}
	if k.Out.SPI != x.peer {
		return fmt.Errorf("key exchange gave outbound SPI %#08x where the peer proposed %#08x", k.Out.SPI, x.peer)
	}
	if err := t.addInbound(&k.In); err != nil {
		return err
	}
	x.installed = true
	out := k.Out
	x.out = func() *SA { return &out }
	return nil
}

// finishResponse is its second part: done arrived, so the initiator's inbound SA stands.
func (t *Tunnel) finishResponse(x *exchange, err error) error {
	switch {
	case err != nil:
	case t.closed:
		err = ErrClosed
	case !x.installed:
		err = errors.New("key exchange ended without keys")
	default:
		err = t.set.dataplane.SetOutbound(t.name, t.limited(x.out(), t.limits))
	}
	if err == nil {
		t.switched(x)
		t.settle(x)
		return nil
	}
	switch {
	case !x.installed:
		t.set.spis.Release(x.spi)
	case t.out == 0: // the initiator takes its first SAs back too when done is not acknowledged
		err = errors.Join(err, t.set.dataplane.RemoveInbound(t.name, x.spi))
		t.set.spis.Release(x.spi)
	default: // the confirmation may have arrived, and then the initiator sends to this SA
		t.held = append(t.held, x.spi)
		if t.want == "" { // it may also take the exchange for complete, so do not wait for it
			t.want, t.wanted = ByPeer, t.usage()
		}
	}
	t.fail(x, err)
	return err
}

func (t *Tunnel) mayInstall(x *exchange, k *Keys) error {
	switch {
	case t.closed:
		return ErrClosed
	case t.exchange != x:
		return ErrAbandoned
	case x.installed:
		return errors.New("keys were installed before")
	}
	if err := k.check(x.spi); err != nil {
		return err
	}
	if t.uses(k.Out.SPI) {
		return fmt.Errorf("peer chose SPI %#08x, which is in use", k.Out.SPI)
	}
	return nil
}

func (t *Tunnel) addInbound(sa *SA) error {
	return t.set.dataplane.AddInbound(t.name, t.limited(sa, t.limits.late()))
}

func (t *Tunnel) limited(sa *SA, soft Limits) *SA {
	sa.Soft, sa.Hard = soft.volume(), t.limits.hard().volume()
	return sa
}

// switched makes the SAs of x, which the dataplane uses already, the tunnel's. What was inbound is held until it is
// certain that the peer switched as well; what was outbound goes at once.
func (t *Tunnel) switched(x *exchange) {
	x.old, x.replaced = SPIPair{t.in, t.out}, t.usage()
	if t.in != 0 {
		t.held = append(t.held, t.in)
	}
	if t.out != 0 {
		if err := t.set.dataplane.RemoveOutbound(t.name, t.out); err != nil {
			t.emit(Event{Kind: Failed, Trigger: x.trigger, Initiator: x.initiator, Old: x.old, Err: err})
		}
	}
	t.in, t.out = x.spi, x.peer
	t.end.stop() // of the old SAs
}

// settle ends an exchange that completed at both ends.
func (t *Tunnel) settle(x *exchange) {
	e := Event{
		Kind: Rekeyed, Trigger: x.trigger, Initiator: x.initiator, Old: x.old, New: SPIPair{t.in, t.out},
		Triggered: x.triggered, Replaced: x.replaced, Duration: time.Since(x.began),
	}
	if !t.up {
		e.Kind = Established
	}
	t.emit(e)
	t.up = true
	for _, spi := range t.held {
		t.retiring[spi] = t.after(t.grace, func() { t.retire(spi) })
	}
	t.held = nil
	t.attempts = 0
	t.want = ""
	t.retry.stop()
	t.retry = nil
	t.wake(nil)
	t.watchTime(x.initiator)
	if x.next != "" {
		t.trigger(x.next)
	}
}

// doubt ends an exchange of ours whose last message may not have arrived. Its SAs are good and in use, but the peer
// may go on with its old outbound SA, so the inbound one stays until an exchange completes.
func (t *Tunnel) doubt(err error, x *exchange) {
	switch {
	case t.closed:
	case !t.up:
		err = errors.Join(err, t.dropSAs())
	default:
		t.end = t.after(t.endAt.Sub(t.set.clock.Now()), t.lapse)
	}
	t.fail(x, err)
}

// retire ends the grace of an inbound SA.
func (t *Tunnel) retire(spi uint32) {
	e := Event{Kind: Retired, Old: SPIPair{In: spi}}
	e.Replaced.In, _ = t.set.dataplane.Counters(t.name, spi)
	e.Err = t.set.dataplane.RemoveInbound(t.name, spi)
	delete(t.retiring, spi)
	t.set.spis.Release(spi)
	t.emit(e)
}

// dropSAs removes every SA but that of an exchange under way.
func (t *Tunnel) dropSAs() error {
	var errs []error
	if t.out != 0 {
		errs = append(errs, t.set.dataplane.RemoveOutbound(t.name, t.out))
	}
	inbound := t.held
	if t.in != 0 {
		inbound = append(inbound, t.in)
	}
	for spi, tm := range t.retiring {
		tm.stop()
		inbound = append(inbound, spi)
	}
	for _, spi := range inbound {
		errs = append(errs, t.set.dataplane.RemoveInbound(t.name, spi))
		t.set.spis.Release(spi)
	}
	clear(t.retiring)
	t.in, t.out, t.up, t.held = 0, 0, false, nil
	return errors.Join(errs...)
}

// abandon takes back an exchange of ours none of whose keys is installed.
func (t *Tunnel) abandon(x *exchange) {
	x.cancel()
	t.exchange = nil
}

func (t *Tunnel) takeSPI(peer uint32) (uint32, error) {
	return t.set.spis.Take(t.out, peer)
}

// uses reports whether an SA of the tunnel has this SPI, in either direction.
func (t *Tunnel) uses(spi uint32) bool {
	x := t.exchange
	return spi == t.in || spi == t.out || slices.Contains(t.held, spi) || t.retiring[spi] != nil || x != nil && spi == x.spi
}
