package strongswan

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
	"pqlab/ipsec/strongswan/vici"
	"pqlab/ipsec/xfrm"
)

func (d *Daemon) emit(t *tunnel, e Event) {
	e.Tunnel, e.At = t.Policy.Tunnel, time.Now()
	select {
	case d.events <- e:
	default:
		d.lost.Add(1)
	}
}

// heard takes what charon tells.
func (d *Daemon) heard(event string, m *vici.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, ike := range m.Sections() {
		t := d.tunnels[name]
		if t == nil {
			continue
		}
		for _, child := range ike.Section("child-sas").Sections() {
			switch event {
			case "child-updown":
				d.upDown(t, pairOf(child), m.Value("up") == "yes")
			case "child-rekey":
				mine, theirs := rekeying(ike)
				d.rekeyed(t, mine, theirs, pairOf(child.Section("old")), pairOf(child.Section("new")))
			}
		}
	}
}

// rekeying says who has begun to rekey when charon tells of it: this end, the other, or both.
func rekeying(ike *vici.Message) (mine, theirs bool) {
	const task = "CHILD_REKEY"
	for list, tasks := range ike.Lists() {
		mine = mine || list == "tasks-active" && slices.Contains(tasks, task)
		theirs = theirs || list == "tasks-passive" && slices.Contains(tasks, task)
	}
	return mine, theirs
}

// pairOf reads the SPIs of a CHILD_SA.
func pairOf(child *vici.Message) ipsec.SPIPair {
	spi := func(key string) uint32 {
		n, _ := strconv.ParseUint(child.Value(key), 16, 32) // what is no SPI is none
		return uint32(n)
	}
	return ipsec.SPIPair{In: spi("spi-in"), Out: spi("spi-out")}
}

func (t *tunnel) use(p ipsec.SPIPair) {
	t.in, t.out, t.up = p.In, p.Out, p != ipsec.SPIPair{}
	close(t.changed)
	t.changed = make(chan struct{})
}

func (d *Daemon) upDown(t *tunnel, p ipsec.SPIPair, up bool) {
	switch {
	case up:
		e := Event{Event: ipsec.Event{Kind: ipsec.Established, Trigger: ipsec.ByPeer, New: p}}
		if t.trigger != "" {
			e.Trigger, e.Initiator, e.Duration = t.trigger, true, time.Since(t.began)
		}
		e.Exchange, _ = d.exchanged(t, t.before)
		e.Exchange.Took = e.Duration
		t.trigger = ""
		t.use(p)
		d.emit(t, e)
	case p.In == t.in:
		d.emit(t, Event{Event: ipsec.Event{Kind: ipsec.Failed, Old: p, Err: errors.New("charon ended the CHILD_SA")}})
		delete(t.final, t.in)
		delete(t.final, t.out)
		t.use(ipsec.SPIPair{})
	}
}

// rekeyed takes a rekey. Where both ends have begun at once there are two pairs of new SAs, of which one is ended again (RFC
// 7296 section 2.8.1). charon tells of both where its own is to stay, of that last, and of the other one alone where not.
func (d *Daemon) rekeyed(t *tunnel, mine, theirs bool, old, new ipsec.SPIPair) {
	for _, e := range t.replaced {
		if e.Old == old {
			e.New, e.contested = new, false
			t.use(new)
			d.settle(t)
			return
		}
	}
	if old.In != t.in {
		return
	}
	e := &replacement{contested: mine && theirs}
	e.Event.Event = ipsec.Event{Kind: ipsec.Rekeyed, Trigger: ipsec.ByPeer, Old: old, New: new}
	if mine && (!theirs || t.first()) { // so that one of the ends says that it did
		e.Trigger, e.Initiator = cmp.Or(t.trigger, d.reason(t, old)), true
	}
	if t.trigger != "" {
		e.Duration, e.Triggered = time.Since(t.began), t.usage
		e.Exchange.Took = e.Duration // its bytes cannot be told: charon may have begun before we heard of the limit
	}
	t.trigger = ""
	e.Replaced.In = d.used(t).In
	t.replaced = append(t.replaced, e)
	t.retiring[old.In] = true
	t.use(new)
	d.settle(t)
}

// reason is why SAs were replaced of which the kernel's word was missed, or came before charon's.
func (d *Daemon) reason(t *tunnel, old ipsec.SPIPair) ipsec.Trigger {
	for _, sa := range []struct {
		dst netip.Addr
		spi uint32
	}{{t.Policy.Src, old.In}, {t.Policy.Dst, old.Out}} {
		s, err := d.kernel.conn.GetSA(sa.dst, sa.spi)
		if err != nil {
			s = t.final[sa.spi]
		}
		if all := xfrm.Reached(t.soft, t.largest, &s); len(all) > 0 {
			return all[0]
		}
	}
	return ipsec.ByTime
}

// settle tells of rekeys whose old outbound SA is gone, with its final count, and of old inbound SAs that are.
func (d *Daemon) settle(t *tunnel) {
	for len(t.replaced) > 0 {
		e := t.replaced[0]
		s, gone := t.final[e.Old.Out]
		_, retired := t.final[e.Old.In] // by then charon has told all
		if !gone || e.contested && !retired {
			break
		}
		delete(t.final, e.Old.Out)
		e.Replaced.Out = xfrm.Counted(s, true)
		t.replaced = t.replaced[1:]
		d.emit(t, e.Event)
	}
	for spi := range t.retiring {
		s, ok := t.final[spi]
		if !ok {
			continue
		}
		delete(t.final, spi)
		delete(t.retiring, spi)
		addRefused(&t.drops, s)
		e := Event{Event: ipsec.Event{Kind: ipsec.Retired, Old: ipsec.SPIPair{In: spi}}}
		e.Replaced.In = xfrm.Counted(s, false)
		d.emit(t, e)
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// deaf is called when charon tells nothing more.
func (d *Daemon) deaf(err error) {
	if err == nil {
		return
	}
	<-d.charon.done
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.ended = fmt.Errorf("%w: %w; it says: %s", ErrEnded, d.charon.ended, d.charon.log.last(3))
	for _, t := range d.tunnels {
		d.emit(t, Event{Event: ipsec.Event{Kind: ipsec.Failed, Old: ipsec.SPIPair{In: t.in, Out: t.out}, Err: d.ended}})
	}
}

// watch takes what the kernel tells of SAs, until the monitor is closed.
func (d *Daemon) watch() {
	for {
		told, err := d.kernel.monitor.Next()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		d.mu.Lock()
		switch m := told.(type) {
		case xfrmnl.Expire:
			d.expired(m)
		case xfrmnl.Deleted:
			d.deleted(m)
		}
		d.mu.Unlock()
		if err != nil && !errors.Is(err, xfrmnl.ErrLost) {
			return
		}
	}
}

// owner finds the tunnel of an SA.
func (d *Daemon) owner(s *xfrmnl.State) *tunnel {
	for _, t := range d.tunnels {
		in := s.Dst == t.Policy.Src && (s.SPI == t.in || t.retiring[s.SPI])
		out := s.Dst == t.Policy.Dst && s.SPI == t.out
		for _, e := range t.replaced {
			out = out || s.Dst == t.Policy.Dst && s.SPI == e.Old.Out
		}
		if in || out {
			return t
		}
	}
	return nil
}

// expired takes a limit that an SA has reached, and that charon is told of too.
func (d *Daemon) expired(m xfrmnl.Expire) {
	t := d.owner(&m.State)
	if t == nil {
		return
	}
	all := xfrm.Reached(t.soft, t.largest, &m.State)
	trigger := ipsec.ByTime
	if len(all) > 0 {
		trigger = all[0]
	}
	if m.Hard {
		e := ipsec.Event{Kind: ipsec.Expired, Trigger: trigger, Old: ipsec.SPIPair{Out: m.SPI}}
		if m.SPI == t.in {
			e.Old = ipsec.SPIPair{In: m.SPI}
		}
		d.emit(t, Event{Event: e})
		return
	}
	if t.trigger == "" && (m.SPI == t.in || m.SPI == t.out) {
		_ = d.begin(t, trigger) // its bytes are not known then
		// What the SA had carried is in the message; since then it may have carried more.
		if s := m.State; m.SPI == t.out {
			s.Out = s.Packets // of which the message says nothing: each packet had one
			t.usage.Out = xfrm.Counted(s, true)
		} else {
			s.In = t.usage.In.Seq
			t.usage.In = xfrm.Counted(s, false)
		}
	}
}

// deleted takes the last words of an SA.
func (d *Daemon) deleted(m xfrmnl.Deleted) {
	if t := d.owner(&m.State); t != nil {
		t.final[m.SPI] = m.State
		d.settle(t)
		return
	}
	// One that nobody used: of two new pairs the one that this end had begun, and charon has not told of.
	for _, t := range d.tunnels {
		if m.Dst != t.Policy.Dst {
			continue
		}
		for _, e := range t.replaced {
			e.contested = false
		}
		d.settle(t)
	}
}
