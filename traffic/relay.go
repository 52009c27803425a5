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

	mu      sync.Mutex // guards what follows
	failure error
}

// ListenRelay opens a relay at addr to the next hop, reached from the address from (zero: the kernel chooses). It works
// until Close or the end of ctx.
func ListenRelay(ctx context.Context, addr, to netip.AddrPort, from netip.Addr) (*Relay, error) {
	r := &Relay{to: to, dialer: net.Dialer{Timeout: relayDial, KeepAlive: -1}}
	if from.IsValid() {
		r.dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	if err := r.open(ctx, addr); err != nil {
		return nil, fmt.Errorf("relay to %v: %w", to, err)
	}
	return r, nil
}

func (r *Relay) open(ctx context.Context, addr netip.AddrPort) (err error) {
	if r.ln, err = listen(ctx, addr); err != nil {
		return err
	}
	r.addr = r.ln.Addr().(*net.TCPAddr).AddrPort()
	r.ctx, r.cancel = context.WithCancel(ctx)
	context.AfterFunc(r.ctx, func() { r.ln.Close() })
	r.wg.Go(r.accept)
	return nil
}

// listen opens a socket whose connections do not end because nothing comes: whether the network is silent is for the source to
// say, which has a limit.
func listen(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	ln, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, network("tcp", addr.Addr()), addr.String())
	if err != nil {
		return nil, err
	}
	return ln.(*net.TCPListener), nil
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

// Err tells why a connection could not be carried on, of the first of these: ErrUndelivered where the relay found no way to the next
// hop. The source of such a connection sees a reset, and cannot know. After Close it does not change.
func (r *Relay) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failure
}

func (r *Relay) fail(err error) {
	if r.ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failure == nil {
		r.failure = blame(fmt.Errorf("relay to %v: %w", r.to, err))
	}
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
		r.fail(err)
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
		if noWay(err) { // else an end has gone, of itself or because the other direction broke
			r.fail(err)
		}
		abort(dst)
		abort(src)
	}
}
