package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// sender is an outer socket like a gateway's, at a port of its own, with a tunnel to a peer that reads and one to nobody.
type sender struct {
	*outer
	peer   *net.UDPConn
	tunnel *tunnel
	nobody *tunnel // whose peer answers each packet by ICMP: port unreachable
}

func newSender(t *testing.T, noGSO bool) *sender {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func() int {
		t.Helper()
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		must(err)
		t.Cleanup(func() { unix.Close(fd) })
		must(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		return fd
	}
	fd := open()
	must(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1))
	stop, err := newWakeup()
	must(err)
	t.Cleanup(func() { stop.close() })
	s := &sender{outer: &outer{fd: fd, stop: stop}}
	s.local = netip.MustParseAddr("127.0.0.1")
	s.noGSO.Store(noGSO)
	s.peer, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IP{127, 0, 0, 1}})
	must(err)
	t.Cleanup(func() { s.peer.Close() })
	s.peer.SetDeadline(time.Now().Add(time.Minute))
	to := func(port uint16) *tunnel {
		tn := &tunnel{socket: s.outer, peer: peerAddress(s.local, ipsec.UDP)}
		tn.policy.Dst, tn.policy.Encapsulation = s.local, ipsec.UDP
		tn.peer.v4.Port = binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
		return tn
	}
	s.tunnel = to(s.peer.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	// A socket that is connected elsewhere keeps its port from others, and takes nothing that we send there.
	other := open()
	must(unix.Connect(other, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}))
	at, err := unix.Getsockname(other)
	must(err)
	s.nobody = to(uint16(at.(*unix.SockaddrInet4).Port))
	return s
}

// provoke sends one packet to nobody, whose answer has come when it returns.
func (s *sender) provoke() error {
	name := unix.SockaddrInet4{Addr: s.local.As4(), Port: int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, s.nobody.peer.v4.Port)))}
	return unix.Sendto(s.fd, []byte{1}, 0, &name)
}

// deliver sends runs of packets to the peer, and fails if one of them is not sent or does not arrive.
func (s *sender) deliver(t *testing.T, b *batch, mark *uint32) {
	t.Helper()
	const run = 8
	first := *mark
	for range run {
		buf := b.room(s.tunnel, 0, 100)
		binary.BigEndian.PutUint32(buf, *mark)
		*mark++
		b.commit(len(buf))
	}
	b.flush()
	if n := s.tunnel.drops.send.Load(); n != 0 {
		t.Fatalf("%d packets were lost", n)
	}
	buf := make([]byte, 2000)
	for want := first; want < *mark; want++ {
		n, err := s.peer.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint32(buf); n != 100 || got != want {
			t.Fatalf("packet %d of %d bytes, want %d", got, n, want)
		}
	}
}

// Errors that packets to others met cost no packet, however many the socket's queue holds: with each that is read of them
// the kernel reports the next one again.
func TestErrorsOfOthersInQueue(t *testing.T) {
	for _, noGSO := range []bool{false, true} {
		t.Run(fmt.Sprintf("noGSO=%v", noGSO), func(t *testing.T) {
			t.Parallel()
			s := newSender(t, noGSO)
			b, mark, queued := newBatch(), uint32(0), 0
			for range 300 {
				for range 40 {
					if err := s.provoke(); err == nil {
						queued++
					} else if !errors.Is(err, unix.ECONNREFUSED) {
						t.Fatal(err)
					}
				}
				var drained sync.WaitGroup
				drained.Go(func() { new(errorQueue).drain(nil, s.outer) })
				s.deliver(t, &b, &mark)
				drained.Wait()
			}
			if queued < 300*10 {
				t.Errorf("only %d errors were provoked", queued)
			}
		})
	}
}

// Nor do errors that come while a run is being sent.
func TestErrorsOfOthersMeanwhile(t *testing.T) {
	for _, noGSO := range []bool{false, true} {
		t.Run(fmt.Sprintf("noGSO=%v", noGSO), func(t *testing.T) {
			t.Parallel()
			s := newSender(t, noGSO)
			var over atomic.Bool
			var others sync.WaitGroup
			others.Go(func() {
				for !over.Load() {
					_ = s.provoke()
				}
			})
			others.Go(func() {
				var q errorQueue
				for !over.Load() {
					q.drain(nil, s.outer)
				}
			})
			b, mark := newBatch(), uint32(0)
			defer others.Wait()
			defer over.Store(true)
			for range 500 {
				s.deliver(t, &b, &mark)
			}
		})
	}
}

// A run whose own way is closed is given up after a bounded number of tries, and counted once.
func TestErrorsOfItsOwn(t *testing.T) {
	for _, noGSO := range []bool{false, true} {
		t.Run(fmt.Sprintf("noGSO=%v", noGSO), func(t *testing.T) {
			t.Parallel()
			s := newSender(t, noGSO)
			// A broadcast without SO_BROADCAST is EACCES, which ICMP may report too.
			closed := &tunnel{socket: s.outer, policy: s.tunnel.policy, peer: peerAddress(netip.MustParseAddr("255.255.255.255"), ipsec.UDP)}
			b, mark := newBatch(), uint32(0)
			for range 5 {
				copy(b.room(closed, 0, 100), make([]byte, 100))
				b.commit(100)
			}
			b.flush()
			if n := closed.drops.send.Load(); n != 5 {
				t.Errorf("%d packets were counted, want 5", n)
			}
			if b.reported != maxReported {
				t.Errorf("tried %d times again, want %d", b.reported, maxReported)
			}
			s.deliver(t, &b, &mark)
		})
	}
}
