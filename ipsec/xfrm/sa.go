package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

// linger is how long an outbound SA stays in the kernel after it was replaced and removed: longer than any packet is
// between its lookup and its sealing.
const linger = time.Second

// saID names an SA in the kernel.
type saID struct {
	tunnel *tunnel
	dst    netip.Addr
	spi    uint32
}

// sa is what is known of an SA that is installed. It is guarded by Dataplane.mu.
type sa struct {
	saID
	outbound   bool
	began      uint64 // sequence number before its first packet
	soft, hard []bound
	told       bool          // of a soft limit
	last       xfrmnl.State  // when it was read last
	expired    chan struct{} // closed when the kernel has removed it; last is final then
	replaced   bool          // no further packet is looked up to it
	final      bool          // replaced, and no packet is on its way to it
}

func (s *sa) gone() bool {
	select {
	case <-s.expired:
		return true
	default:
		return false
	}
}

// add installs an SA in the kernel.
func (d *Dataplane) add(t *tunnel, from *ipsec.SA, outbound bool) (*sa, error) {
	if from.SPI < 256 {
		return nil, ipsec.ErrSPI
	}
	if t.inbound[from.SPI] != nil || t.outbound[from.SPI] != nil {
		return nil, ipsec.ErrExists
	}
	hard, err := hardBounds(from.Hard, d.largest())
	if err != nil {
		return nil, err
	}
	s := &sa{
		saID: saID{t, t.policy.Src, from.SPI}, outbound: outbound, began: from.Seq, soft: softBounds(from.Soft, d.largest()), hard: hard,
		expired: make(chan struct{}),
	}
	k := xfrmnl.SA{
		Src: t.policy.Dst, Dst: t.policy.Src, SPI: from.SPI, ReqID: t.reqid, IfID: t.ifID, Key: &from.Key, Salt: from.Salt,
		Soft: tightest(s.soft), Hard: tightest(s.hard),
	}
	defer clear(k.Salt[:])
	if t.policy.Encapsulation == ipsec.UDP {
		k.UDP = ipsec.UDPPort
	}
	if outbound {
		s.dst, k.Src, k.Dst = k.Src, k.Dst, k.Src
		k.Out = from.Seq
	} else {
		k.In = from.Seq
		k.Window = xfrmnl.MaxWindow
		if w := from.ReplayWindow; w > k.Window {
			return nil, fmt.Errorf("%w: %d packets, and it takes %d", ErrWindow, w, k.Window)
		} else if w != 0 {
			k.Window = (w + 31) &^ 31
		}
	}
	if d.directions {
		k.Direction = xfrmnl.In
		if outbound {
			k.Direction = xfrmnl.Out
		}
	}
	if timer := d.lingers[s.saID]; timer != nil {
		timer.Stop()
		if err := d.evict(s.saID); err != nil {
			return nil, err
		}
	}
	err = d.conn.AddSA(&k)
	if errors.Is(err, unix.EEXIST) {
		// The kernel's own, for packets of a tunnel that had lost this very SA.
		if old, errGet := d.conn.GetSA(k.Dst, k.SPI); errGet == nil && old.Larval && old.ReqID == t.reqid && d.sas[s.saID] == nil {
			err = errors.Join(d.conn.DeleteSA(k.Dst, k.SPI), d.conn.AddSA(&k))
		} else {
			return nil, fmt.Errorf("%w: %w", ipsec.ErrExists, err)
		}
	}
	if err != nil {
		return nil, noESP(err)
	}
	s.last.In, s.last.Out = k.In, k.Out
	d.sas[s.saID] = s
	return s, nil
}

// drop removes an SA from the kernel at once, and keeps what it refused.
func (d *Dataplane) drop(s *sa) error {
	if !s.gone() {
		if state, err := d.get(s); err == nil {
			s.last = state
		}
		if err := d.evict(s.saID); err != nil {
			return err
		}
	}
	if !s.outbound {
		s.tunnel.drops.Replay += s.last.Late + s.last.Replayed
		s.tunnel.drops.Integrity += s.last.Forged
	}
	return nil
}

// evict removes an SA from the kernel; one that is gone is no error.
func (d *Dataplane) evict(id saID) error {
	delete(d.lingers, id)
	if err := d.conn.DeleteSA(id.dst, id.spi); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("SPI %#08x: delete: %w", id.spi, err)
	}
	return nil
}

// AddInbound makes the node accept packets of sa on the tunnel, beside those of earlier SAs, and wipes sa.
func (d *Dataplane) AddInbound(tunnel string, sa *ipsec.SA) error {
	defer sa.Wipe()
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.find(tunnel)
	if err != nil {
		return err
	}
	s, err := d.add(t, sa, false)
	if err != nil {
		return fmt.Errorf("tunnel %s: inbound %v: %w", tunnel, sa, err)
	}
	t.inbound[sa.SPI] = s
	return nil
}

// SetOutbound makes sa protect every further packet of the tunnel. The SA before it stays, for its Counters, until
// RemoveOutbound. It wipes sa. Where it fails the SA before goes on protecting.
func (d *Dataplane) SetOutbound(tunnel string, sa *ipsec.SA) error {
	defer sa.Wipe()
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.find(tunnel)
	if err != nil {
		return err
	}
	s, err := d.add(t, sa, true)
	if err != nil {
		return fmt.Errorf("tunnel %s: outbound %v: %w", tunnel, sa, err)
	}
	if err := d.use(t, s); err != nil {
		delete(d.sas, s.saID)
		return errors.Join(fmt.Errorf("tunnel %s: outbound %v: %w", tunnel, sa, err), d.evict(s.saID))
	}
	t.outbound[sa.SPI] = s
	return nil
}

// use makes s, or none, protect what leaves.
func (d *Dataplane) use(t *tunnel, s *sa) error {
	out, none := t.out, t.none
	if out == nil || s == nil || out.gone() { // the tunnel had none to send with, or will have none
		if err := d.settleAccounts(); err != nil {
			return err
		}
	}
	if s == nil {
		d.want(t)
	} else {
		t.out = s
	}
	for i, w := range t.ways {
		if err := d.conn.SetPolicy(t.outgoing(w)); err != nil {
			delete(d.wanted, t.none)
			if t.out, t.none = out, none; out == nil {
				d.wanted[none] = t
			}
			for _, w := range t.ways[:i] {
				err = errors.Join(err, d.conn.SetPolicy(t.outgoing(w)))
			}
			return fmt.Errorf("policy from %v to %v: %w", w.local, w.remote, err)
		}
	}
	if s != nil {
		delete(d.wanted, none)
		t.none = 0
	}
	if out != nil {
		out.replaced = true
	}
	return nil
}

// RemoveInbound drops one SA; one that is gone already is no error.
func (d *Dataplane) RemoveInbound(tunnel string, spi uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.find(tunnel)
	if err != nil {
		return err
	}
	s := t.inbound[spi]
	if s == nil {
		return nil
	}
	delete(t.inbound, spi)
	delete(d.sas, s.saID)
	return d.drop(s)
}

// RemoveOutbound drops one SA; one that is gone already is no error. One that was replaced leaves the kernel a moment
// later, when packets that were on their way to it have left.
func (d *Dataplane) RemoveOutbound(tunnel string, spi uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.find(tunnel)
	if err != nil {
		return err
	}
	s := t.outbound[spi]
	if s == nil {
		return nil
	}
	if t.out == s {
		if err := d.use(t, nil); err != nil {
			return fmt.Errorf("tunnel %s: outbound SPI %#08x: remove: %w", tunnel, spi, err)
		}
		delete(t.outbound, spi)
		delete(d.sas, s.saID)
		return d.drop(s)
	}
	delete(t.outbound, spi)
	delete(d.sas, s.saID)
	if s.gone() {
		return nil
	}
	d.lingers[s.saID] = time.AfterFunc(linger, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.lingers[s.saID] != nil && d.sas[s.saID] == nil {
			_ = d.evict(s.saID) // it goes with its tunnel at the latest
		}
	})
	return nil
}

// expiryPatience is how long the kernel may take to tell of an SA that it has removed.
const expiryPatience = 10 * time.Second

// Counters of an SA in either direction; an SA that is not there is ipsec.ErrUnknown. Packets and the sequence number are
// exact. Bytes and Blocks are bounds, never below what the cipher got: the kernel counts inner packets without padding.
func (d *Dataplane) Counters(tunnel string, spi uint32) (ipsec.Counters, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.find(tunnel)
	if err != nil {
		return ipsec.Counters{}, err
	}
	s := t.inbound[spi]
	if s == nil {
		s = t.outbound[spi]
	}
	if s == nil {
		return ipsec.Counters{}, fmt.Errorf("tunnel %s: SPI %#08x: %w", tunnel, spi, ipsec.ErrUnknown)
	}
	if s.replaced && !s.final {
		drain()
		s.final = true
	}
	if err := d.refresh(s); err != nil {
		return ipsec.Counters{}, fmt.Errorf("tunnel %s: SPI %#08x: %w", tunnel, spi, err)
	}
	return s.counters(), nil
}

// get asks the kernel for an SA; ESRCH where it has removed it. The one that waits for a key in its place is not it.
func (d *Dataplane) get(s *sa) (xfrmnl.State, error) {
	state, err := d.conn.GetSA(s.dst, s.spi)
	if err == nil && state.Larval {
		err = unix.ESRCH
	}
	return state, err
}

// refresh reads an SA. One that the kernel has removed it waits to be told of.
func (d *Dataplane) refresh(s *sa) error {
	if s.gone() {
		return nil
	}
	state, err := d.get(s)
	if errors.Is(err, unix.ESRCH) {
		d.mu.Unlock()
		select {
		case <-s.expired:
			err = nil
		case <-time.After(expiryPatience):
		}
		d.mu.Lock()
		return err
	}
	if err == nil {
		s.last = state
	}
	return err
}

func (s *sa) counters() ipsec.Counters {
	c := ipsec.Counters{Packets: s.last.Packets, Seq: s.last.In}
	if s.outbound {
		c.Packets, c.Seq = s.last.Out-s.began, s.last.Out
	}
	c.Bytes, c.Blocks = mostPlain(s.last.Bytes, c.Packets), mostBlocks(s.last.Bytes, c.Packets)
	return c
}

// drain returns when every packet that a processor was handling has been handled.
func drain() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL: waits for a grace period of RCU
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		time.Sleep(10 * time.Millisecond) // a kernel without it, or with nohz_full
	}
}
