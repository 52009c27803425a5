package gateway

import (
	"errors"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"

	"pqlab/internal/offload"
	"pqlab/ipsec"
	"pqlab/ipsec/gateway/esp"
	"pqlab/ipsec/gateway/port"
)

// outbound reads the port, seals and sends, in one goroutine and without a queue of its own: what it has sealed leaves
// when the port is empty or the batch is full.
type outbound struct {
	g      *Gateway
	buf    []byte
	header offload.Header
	seg    offload.Segmenter
	batch  batch
	icmp   *port.Writer

	// The last flow, which is likely to be the next one too.
	last struct {
		table    *table
		src, dst netip.Addr
		tunnel   *tunnel
	}
}

func (g *Gateway) newOutbound() *outbound {
	return &outbound{g: g, buf: make([]byte, port.BufferLen), batch: newBatch(), icmp: g.port.Writer()}
}

// run ends when the gateway stops.
func (o *outbound) run() {
	runtime.LockOSThread()
	for {
		packet, err := o.g.port.Read(&o.header, o.buf)
		switch {
		case err == nil:
			o.packet(packet)
			continue
		case errors.Is(err, unix.EINTR):
			continue
		}
		o.batch.flush()
		// Errors other than EAGAIN (the interface is down) pass as well by waiting.
		if _, ok := o.g.stop.wait(o.g.port.FD(), unix.POLLIN); !ok {
			return
		}
	}
}

func (o *outbound) packet(packet []byte) {
	src, dst, next, ok := addresses(packet)
	if !ok {
		o.g.drops.malformed.Add(1)
		return
	}
	t := o.lookup(src, dst)
	if t == nil {
		// The kernel's own multicast (neighbour and router discovery, listener reports) is no traffic of anybody's.
		if !dst.IsMulticast() {
			o.g.drops.policy.Add(1)
		}
		return
	}
	if o.seg.Reset(o.header, packet) != nil {
		t.drops.malformed.Add(1)
		return
	}
	if mtu := t.mtu(); o.seg.Largest() > mtu {
		o.tooBig(t, packet, mtu)
		return
	}
	sa := t.acquire()
	if sa == nil {
		t.drops.noSA.Add(uint64(o.seg.Count()))
		if !t.asked.Swap(true) {
			o.g.expiries.Add(ipsec.Expiry{Tunnel: t.policy.Tunnel, Trigger: ipsec.ByTraffic})
		}
		return
	}
	defer sa.release()
	tos := outerTOS(innerTOS(packet))
	for n := o.seg.Len(); n > 0; n = o.seg.Len() {
		buf := o.batch.room(t, tos, esp.Size(n))
		o.seg.Next(buf[esp.Offset:])
		if !sa.seal(buf, n, next, o.g.expiries) {
			t.drops.expired.Add(1)
			continue
		}
		o.batch.commit(len(buf))
	}
	sa.publish()
}

func (o *outbound) lookup(src, dst netip.Addr) *tunnel {
	tb := o.g.table.Load()
	if l := &o.last; l.table != tb || l.dst != dst || l.src != src {
		l.table, l.src, l.dst, l.tunnel = tb, src, dst, tb.lookup(src, dst)
	}
	return o.last.tunnel
}

// addresses reads what policies look at, and checks that the packet is as long as it says.
func addresses(ip []byte) (src, dst netip.Addr, next byte, ok bool) {
	if len(ip) < 20 {
		return src, dst, 0, false
	}
	switch ip[0] >> 4 {
	case 4:
		header := int(ip[0]&15) * 4
		// A super-packet's own length field may say less or zero: only its header has to be there.
		if header < 20 || header > len(ip) {
			return src, dst, 0, false
		}
		return netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20])), esp.IPv4, true
	case 6:
		if len(ip) < 40 {
			return src, dst, 0, false
		}
		return netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40])), esp.IPv6, true
	}
	return src, dst, 0, false
}
