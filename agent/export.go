package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"pqlab/ipsec"
)

const (
	// exportEvery is how often a capture is told that it knows everything.
	exportEvery = 100 * time.Millisecond
	// maxExported is how many secrets wait for a capture that does not take them; further ones are counted as missed.
	maxExported = 1 << 14
)

// Export asks for the secrets that captures of the node's links need.
type Export struct {
	TLS bool // of the TLS sessions of exchanges that the node answers
	SAs bool // the keys of SAs that the node receives with
}

// Exported is what a node has for captures since the last time. It is kept only while somebody has asked for it.
type Exported struct {
	Until  time.Time // of all that happened up to here nothing is outstanding
	TLS    []byte    // lines of a TLS key log; they came before anything under them was sent
	SAs    []ExportedSA
	Missed uint64 // secrets that found no room, since the beginning
}

// ExportedSA is an inbound SA, told before the peer knows that it may send to it.
type ExportedSA struct {
	Tunnel   string
	SPI      uint32
	Replaces uint32     // SPI of the latest one before it
	Src, Dst netip.Addr // of its packets: the peer, this node
	Key      []byte
	Salt     []byte
}

// Neither prints what is secret.

func (e Exported) String() string             { return fmt.Sprintf("secrets until %v", e.Until) }
func (e Exported) GomegaString() string       { return e.String() }
func (e Exported) Format(f fmt.State, _ rune) { fmt.Fprint(f, e.String()) }

func (s ExportedSA) String() string             { return fmt.Sprintf("SA %#08x", s.SPI) }
func (s ExportedSA) GomegaString() string       { return s.String() }
func (s ExportedSA) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// Export calls f with the secrets that come from now on, and at least every 100 ms, until ctx ends. The channel gets how
// it ended. What was agreed before is not among them: an agent keeps no keys that nobody has asked for.
func (c *Client) Export(ctx context.Context, what Export, f func(Exported)) (<-chan error, error) {
	return receive(ctx, c, "Export", what, f)
}

func (s *Server) streamExports(what Export) func(context.Context, func(Exported) error) error {
	x := s.exports.open(what)
	return func(ctx context.Context, send func(Exported) error) error {
		defer s.exports.close(x)
		tick := time.NewTicker(exportEvery)
		defer tick.Stop()
		for {
			out := s.exports.take(x)
			err := send(out)
			out.wipe()
			if err != nil {
				return err
			}
			select {
			case <-x.some:
			case <-tick.C:
			case <-ctx.Done():
				return nil
			case <-s.running.Done():
				return nil
			}
		}
	}
}

func (e *Exported) wipe() {
	clear(e.TLS)
	for _, sa := range e.SAs {
		clear(sa.Key)
		clear(sa.Salt)
	}
}

// exports hands secrets to those who asked for them, and keeps none otherwise.
type exports struct {
	mu    sync.Mutex
	asked []*export
}

// export is what waits for one who asked.
type export struct {
	what   Export
	some   chan struct{} // something waits
	out    Exported
	pieces int // in out
}

func (e *exports) open(what Export) *export {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := &export{what: what, some: make(chan struct{}, 1)}
	e.asked = append(e.asked, x)
	return x
}

func (e *exports) close(x *export) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = slices.DeleteFunc(e.asked, func(other *export) bool { return other == x })
	x.out.wipe()
}

// take gives what waits. Whatever is noted later happened after Until.
func (e *exports) take(x *export) Exported {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := x.out
	out.Until = time.Now()
	x.out, x.pieces = Exported{Missed: out.Missed}, 0
	return out
}

// note gives a secret to those who want it.
func (e *exports) note(wants func(Export) bool, add func(*Exported)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.asked {
		if !wants(x.what) {
			continue
		}
		if x.pieces == maxExported {
			x.out.Missed++
			continue
		}
		x.pieces++
		add(&x.out)
		select {
		case x.some <- struct{}{}:
		default:
		}
	}
}

// wanted says whether somebody asked for the keys of SAs.
func (e *exports) wanted() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.ContainsFunc(e.asked, func(x *export) bool { return x.what.SAs })
}

// Write takes lines of a TLS key log.
func (e *exports) Write(line []byte) (int, error) {
	e.note(func(w Export) bool { return w.TLS }, func(out *Exported) { out.TLS = append(out.TLS, line...) })
	return len(line), nil
}

// exporting is a dataplane whose inbound SAs go to those who asked for them, whatever dataplane it is.
type exporting struct {
	ipsec.Dataplane
	to *exports

	mu       sync.Mutex
	policies map[string]ipsec.Policy
	latest   map[string]uint32 // inbound SPI by tunnel
}

func newExporting(plane ipsec.Dataplane, to *exports) *exporting {
	return &exporting{Dataplane: plane, to: to, policies: map[string]ipsec.Policy{}, latest: map[string]uint32{}}
}

func (e *exporting) AddTunnel(p ipsec.Policy) error {
	err := e.Dataplane.AddTunnel(p)
	if err == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.policies[p.Tunnel] = p
	}
	return err
}

func (e *exporting) RemoveTunnel(tunnel string) error {
	e.mu.Lock()
	delete(e.policies, tunnel)
	delete(e.latest, tunnel)
	e.mu.Unlock()
	return e.Dataplane.RemoveTunnel(tunnel)
}

func (e *exporting) AddInbound(tunnel string, sa *ipsec.SA) error {
	spi := sa.SPI
	var out ExportedSA
	wanted := e.to.wanted()
	if wanted { // the dataplane wipes it
		out = ExportedSA{Tunnel: tunnel, SPI: spi, Key: slices.Clone(sa.Key[:]), Salt: slices.Clone(sa.Salt[:])}
	}
	err := e.Dataplane.AddInbound(tunnel, sa)
	e.mu.Lock()
	policy, before := e.policies[tunnel], e.latest[tunnel]
	if err == nil {
		e.latest[tunnel] = spi
	}
	e.mu.Unlock()
	if wanted && err == nil {
		out.Replaces, out.Src, out.Dst = before, policy.Dst, policy.Src
		e.to.note(func(w Export) bool { return w.SAs }, func(to *Exported) {
			each := out
			each.Key, each.Salt = slices.Clone(out.Key), slices.Clone(out.Salt)
			to.SAs = append(to.SAs, each)
		})
	}
	clear(out.Key)
	clear(out.Salt)
	return err
}
