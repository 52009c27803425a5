package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// relayDial bounds how long a relay tries to reach the next hop.
const relayDial = 10 * time.Second

// Relay accepts TCP connections and carries each onwards on one of its own, as a proxy does: the two are separate for TCP,
// IP and any tunnel. The kernel moves the bytes (splice).
type Relay struct {
	ln     *net.TCPListener
	addr   netip.AddrPort
	to     netip.AddrPort
	dialer net.Dialer
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	bytes, connections, failed atomic.Uint64
}

// ListenRelay opens a relay at addr to the next hop, reached from the address from (zero: the kernel chooses). It works
// until Close or the end of ctx.
func ListenRelay(ctx context.Context, addr, to netip.AddrPort, from netip.Addr) (*Relay, error) {
	ln, err := net.ListenTCP(network("tcp", addr.Addr()), net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("relay to %v: %w", to, err)
	}
	r := &Relay{ln: ln, addr: ln.Addr().(*net.TCPAddr).AddrPort(), to: to, dialer: net.Dialer{Timeout: relayDial, KeepAlive: -1}}
	if from.IsValid() {
		r.dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	context.AfterFunc(r.ctx, func() { ln.Close() })
	r.wg.Go(r.accept)
	return r, nil
}

// Addr is where the relay listens.
func (r *Relay) Addr() netip.AddrPort { return r.addr }

// Bytes counts what was carried in both directions by connections that have ended.
func (r *Relay) Bytes() uint64 { return r.bytes.Load() }

// Connections counts those accepted, and those of them that could not be carried on.
func (r *Relay) Connections() (accepted, failed uint64) { return r.connections.Load(), r.failed.Load() }

// Close ends the relay and what it carries.
func (r *Relay) Close() error {
	r.cancel()
	r.wg.Wait()
	return nil
}

func (r *Relay) accept() {
	for {
		in, err := r.ln.AcceptTCP()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				r.cancel()
			}
			return
		}
		r.connections.Add(1)
		r.wg.Go(func() { r.carry(in) })
	}
}

func (r *Relay) carry(in *net.TCPConn) {
	c, err := r.dialer.DialContext(r.ctx, network("tcp", r.to.Addr()), r.to.String())
	if err != nil {
		r.failed.Add(1)
		abort(in) // the source sees a reset, not a silent end
		return
	}
	out := c.(*net.TCPConn)
	stop := context.AfterFunc(r.ctx, func() {
		abort(in)
		abort(out)
	})
	var pipes sync.WaitGroup
	pipes.Go(func() { r.pipe(out, in) })
	pipes.Go(func() { r.pipe(in, out) })
	pipes.Wait()
	if stop() {
		in.Close()
		out.Close()
	}
}

// pipe carries one direction to its end. The other goes on until it ends too, unless this one broke.
func (r *Relay) pipe(dst, src *net.TCPConn) {
	n, err := io.Copy(dst, src)
	r.bytes.Add(uint64(n))
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		abort(dst)
		abort(src)
	}
}
