package gateway

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway/esp"
)

// TestBatch seals nothing: it sends marked packets of random sizes to two peers with two TOS values, and each peer must get
// its own, in order, as they were.
func TestBatch(t *testing.T) {
	for _, noGSO := range []bool{false, true} {
		t.Run(fmt.Sprintf("noGSO=%v", noGSO), func(t *testing.T) {
			t.Parallel()
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			stop, err := newWakeup()
			if err != nil {
				t.Fatal(err)
			}
			defer stop.close()
			socket := &outer{fd: fd, stop: stop}
			socket.noGSO.Store(noGSO)
			var tunnels [2]*tunnel
			var peers [2]*net.UDPConn
			for i := range peers {
				c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IP{127, 0, 0, 1}})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(2 * time.Minute))
				raw, err := c.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1) })
				if err != nil {
					t.Fatal(err)
				}
				peers[i] = c
				a := c.LocalAddr().(*net.UDPAddr).AddrPort()
				tunnels[i] = &tunnel{socket: socket}
				tunnels[i].policy.Dst = netip.MustParseAddr("127.0.0.1")
				tunnels[i].peer = peerAddress(a.Addr(), 0)
				tunnels[i].peer.v4.Port = binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, a.Port()))
			}
			type sent struct {
				mark uint32
				size int
				tos  uint8
			}
			r := rand.New(rand.NewPCG(1, 1))
			b := newBatch()
			mark := uint32(0)
			for range 200 {
				var want [2][]sent
				for range 1 + r.IntN(40) { // few enough for the receivers' buffers
					to, tos := r.IntN(8)/7, uint8(r.IntN(8)/7*4)
					size := []int{100, 100, 100, 100, 60, 1000}[r.IntN(6)]
					mark++
					buf := b.room(tunnels[to], tos, size)
					clear(buf)
					binary.BigEndian.PutUint32(buf, mark)
					b.commit(size)
					want[to] = append(want[to], sent{mark, size, tos})
				}
				b.flush()
				for i, c := range peers {
					buf, oob := make([]byte, 70000), make([]byte, 100)
					for _, w := range want[i] {
						n, k, _, _, err := c.ReadMsgUDP(buf, oob)
						if err != nil {
							t.Fatal(err)
						}
						got := sent{binary.BigEndian.Uint32(buf), n, parseControl(oob[:k]).tos}
						if got != w {
							t.Fatalf("peer %d got %+v, want %+v", i, got, w)
						}
					}
				}
			}
			for i := range tunnels {
				if n := tunnels[i].drops.send.Load() + tunnels[i].drops.tooBig.Load(); n != 0 {
					t.Errorf("peer %d: %d packets were not sent", i, n)
				}
			}
		})
	}
}

// The largest packet of any tunnel fits a batch, also where a link claims more than an IP packet can be.
func TestLargestPacketFitsBatch(t *testing.T) {
	t.Parallel()
	for _, outer := range []string{"192.0.2.1", "2001:db8::1"} {
		for _, e := range []ipsec.Encapsulation{ipsec.UDP, ipsec.ESP} {
			addr := netip.MustParseAddr(outer)
			p, err := check(ipsec.Policy{
				Tunnel: "t", Src: addr, Dst: addr.Next(), Encapsulation: e, PathMTU: 65535,
				Local: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}, Remote: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")},
			})
			if err != nil {
				t.Fatal(err)
			}
			b := newBatch()
			n := esp.Size(p.InnerMTU(p.PathMTU))
			if got := len(b.room(&tunnel{policy: p}, 0, n)); got != n {
				t.Errorf("%s, %v: room for %d of %d", outer, e, got, n)
			}
		}
	}
}
