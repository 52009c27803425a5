package xfrm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

// watch handles what the kernel tells, until the monitor is closed.
func (d *Dataplane) watch() {
	for {
		told, err := d.monitor.Next()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		d.mu.Lock()
		switch m := told.(type) {
		case xfrmnl.Expire:
			d.expire(m)
		case xfrmnl.Acquire:
			if t := d.wanted[m.ReqID]; t != nil {
				d.tell(t, 0, ipsec.ByTraffic, false)
			}
		default:
			d.lookAtAll()
		}
		d.mu.Unlock()
		if err != nil && !errors.Is(err, xfrmnl.ErrLost) {
			return
		}
	}
}

func (d *Dataplane) tell(t *tunnel, spi uint32, trigger ipsec.Trigger, hard bool) {
	d.expiries.Add(ipsec.Expiry{Tunnel: t.policy.Tunnel, SPI: spi, Trigger: trigger, Hard: hard})
}

// expire handles a limit that an SA has reached.
func (d *Dataplane) expire(m xfrmnl.Expire) {
	for _, t := range d.tunnels {
		if s := d.sas[saID{t, m.Dst, m.SPI}]; s != nil && t.reqid == m.ReqID {
			if m.Hard {
				d.removed(s, m.State)
			} else {
				d.softReached(s, &m.State)
			}
			return
		}
	}
}

func (d *Dataplane) softReached(s *sa, state *xfrmnl.State) {
	if s.told {
		return
	}
	s.told = true
	for _, trigger := range reached(s.soft, state) {
		d.tell(s.tunnel, s.spi, trigger, false)
	}
}

// removed handles an SA that the kernel has removed at a hard limit, with its last counters.
func (d *Dataplane) removed(s *sa, state xfrmnl.State) {
	if s.gone() {
		return
	}
	// Of the sequence numbers the message says nothing. Each packet that left had one.
	state.In, state.Out = s.last.In, s.began+state.Packets
	s.last = state
	close(s.expired)
	// What was refused between the limit and this is the SA's.
	_ = d.settleAccounts() // else the next time
	for _, trigger := range reached(s.hard, &state) {
		d.tell(s.tunnel, s.spi, trigger, true)
	}
}

// lookAtAll makes up for messages that were lost.
func (d *Dataplane) lookAtAll() {
	for _, s := range d.sas {
		if s.gone() {
			continue
		}
		state, err := d.get(s)
		switch {
		case err == nil:
			s.last = state
			if len(reached(s.soft, &state)) > 0 && (state.Bytes >= tightest(s.soft).Bytes || state.Packets >= tightest(s.soft).Packets) {
				d.softReached(s, &state)
			}
		case errors.Is(err, unix.ESRCH):
			d.removed(s, s.atMost(d.largest()))
		}
	}
	for _, t := range d.wanted {
		d.tell(t, 0, ipsec.ByTraffic, false)
	}
}

// atMost is what an SA may have carried that the kernel has removed at a hard limit, somewhere between what was read last
// and that: bounds that are never below what was.
func (s *sa) atMost(largest int) xfrmnl.State {
	end, limit := s.last, tightest(s.hard)
	if limit.Packets != xfrmnl.None {
		end.Packets = limit.Packets
		end.Bytes += (limit.Packets - s.last.Packets) * uint64(largest)
	}
	if limit.Bytes != xfrmnl.None {
		most := limit.Bytes + uint64(largest)
		if limit.Packets == xfrmnl.None || most < end.Bytes {
			end.Bytes = most
		}
	}
	return end
}

// settleAccounts says of which tunnel the refusals since the last time are. It must be called before a tunnel gets or
// loses its outbound SA. The kernel counts for the whole namespace; where only one tunnel has no SA to send with, those
// that found none are its own.
func (d *Dataplane) settleAccounts() error {
	now, err := d.stat.read()
	if err != nil {
		return err
	}
	rose := now.Since(d.account)
	d.account = now
	var without, spent []*tunnel
	for _, t := range d.tunnels {
		switch {
		case t.out == nil:
			without = append(without, t)
		case t.out.gone():
			spent = append(spent, t)
		}
	}
	d.homeless += rose[statNoSA]
	delete(rose, statNoSA)
	if len(without)+len(spent) > 1 {
		d.rest.NoSA += d.homeless
		d.homeless = 0
	}
	if len(spent) == 1 {
		t := spent[0]
		t.drops.Expired += rose[statExpired]
		delete(rose, statExpired)
		if len(without) == 0 {
			t.drops.Expired += d.homeless
			d.homeless = 0
		}
	}
	if len(without) == 1 && len(spent) == 0 {
		without[0].drops.NoSA += d.homeless
		d.homeless = 0
	}
	add(&d.rest, rose.drops())
	return nil
}

func add(to *ipsec.Drops, d ipsec.Drops) {
	to.NoSA += d.NoSA
	to.UnknownSPI += d.UnknownSPI
	to.Replay += d.Replay
	to.Integrity += d.Integrity
	to.Malformed += d.Malformed
	to.Policy += d.Policy
	to.Plaintext += d.Plaintext
	to.Expired += d.Expired
	to.TooBig += d.TooBig
	to.Send += d.Send
}

// Drops of a tunnel: what its SAs refused, what found no SA or one beyond its limit as far as that can be told, and what
// came in the clear. An empty name gives the rest, which the kernel counts for the namespace.
func (d *Dataplane) Drops(tunnel string) (ipsec.Drops, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if tunnel != "" {
		if _, err := d.find(tunnel); err != nil {
			return ipsec.Drops{}, err
		}
	}
	if d.closed {
		return ipsec.Drops{}, ErrClosed
	}
	if err := d.settleAccounts(); err != nil {
		return ipsec.Drops{}, err
	}
	if tunnel == "" {
		return d.remaining()
	}
	t := d.tunnels[tunnel]
	drops, err := d.ofTunnel(t)
	if err != nil {
		return ipsec.Drops{}, fmt.Errorf("tunnel %s: %w", tunnel, err)
	}
	drops.Plaintext, err = d.filter.Refused(tunnel)
	return drops, err
}

func (d *Dataplane) ofTunnel(t *tunnel) (ipsec.Drops, error) {
	drops := t.drops
	for _, s := range t.inbound {
		if !s.gone() {
			if state, err := d.get(s); err == nil {
				s.last = state
			} else if !errors.Is(err, unix.ESRCH) {
				return drops, err
			}
		}
		drops.Replay += s.last.Late + s.last.Replayed
		drops.Integrity += s.last.Forged
	}
	return drops, nil
}

// remaining is what belongs to no tunnel: what the kernel refused, without what the tunnels' SAs say is theirs.
func (d *Dataplane) remaining() (ipsec.Drops, error) {
	rest := d.rest
	rest.NoSA += d.homeless
	for _, t := range d.tunnels {
		of, err := d.ofTunnel(t)
		if err != nil {
			return rest, err
		}
		rest.Replay = less(rest.Replay, of.Replay)
		rest.Malformed = less(rest.Malformed, of.Integrity) // the kernel counts both as one
	}
	return rest, nil
}
