package port

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/offload"
	"pqlab/internal/rootless"
)

func TestMain(m *testing.M) {
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "port: tests need network namespaces:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// open makes a port in a namespace of its own, up and with the address 10.0.0.1/24.
func open(t *testing.T, kind Kind) (*Port, *netns.Namespace) {
	t.Helper()
	nss, err := netns.New(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nss[0].Close() })
	h, err := nss[0].Netlink()
	if err != nil {
		t.Fatal(err)
	}
	var p *Port
	err = nss[0].Do(func() (err error) {
		p, err = Open(kind, "in0", h)
		return err
	})
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	link, err := h.LinkByName("in0")
	if err != nil {
		t.Fatal(err)
	}
	if n := link.Attrs().TxQLen; kind == TUN && n != queueLen {
		t.Errorf("a queue of %d", n)
	}
	addr, _ := netlink.ParseAddr("10.0.0.1/24")
	if err := errors.Join(h.AddrAdd(link, addr), p.SetMTU(h, 1400), p.Up(h)); err != nil {
		t.Fatal(err)
	}
	return p, nss[0]
}

// TestPort echoes datagrams by swapping addresses and ports, which keeps all checksums right.
func TestPort(t *testing.T) {
	for _, kind := range []Kind{TUN, Packet} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			p, ns := open(t, kind)
			if p.Kind() != kind || p.Name() != "in0" {
				t.Errorf("%s %s", p.Kind(), p.Name())
			}
			var conn net.Conn
			if err := ns.Do(func() (err error) {
				conn, err = net.Dial("udp", "10.0.0.2:9")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(2 * time.Minute))
			w := p.Writer()
			buf := make([]byte, BufferLen)
			for _, n := range []int{1, 1000, 1372} {
				sent := make([]byte, n)
				sent[n-1] = 7
				if _, err := conn.Write(sent); err != nil {
					t.Fatal(err)
				}
				var h offload.Header
				packet := read(t, p, &h, buf)
				if len(packet) != n+28 || packet[0] != 0x45 || packet[9] != 17 {
					t.Fatalf("read % x", packet[:28])
				}
				if h.Flags&offload.NeedsChecksum != 0 && (h.CsumStart != 20 || h.CsumField != 6) {
					t.Errorf("%+v", h)
				}
				for _, field := range [][2]int{{12, 4}, {20, 2}} {
					a, b := packet[field[0]:][:field[1]], packet[field[0]+field[1]:][:field[1]]
					for i := range a {
						a[i], b[i] = b[i], a[i]
					}
				}
				if err := w.Write(&h, [][]byte{packet[:28], packet[28:]}); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 2000)
				k, err := conn.Read(got)
				if err != nil || string(got[:k]) != string(sent) {
					t.Fatalf("%d bytes came back, %v", k, err)
				}
			}
		})
	}
}

// read waits for an IPv4 packet: the kernel may send what it likes of its own besides.
func read(t *testing.T, p *Port, h *offload.Header, buf []byte) []byte {
	t.Helper()
	for {
		packet, err := p.Read(h, buf)
		switch {
		case err == nil && len(packet) > 0 && packet[0]>>4 == 4:
			return packet
		case err == nil:
		case errors.Is(err, unix.EAGAIN):
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.FD()), Events: unix.POLLIN}}, 10000); n == 0 {
				t.Fatal("nothing to read: ", err)
			}
		default:
			t.Fatal(err)
		}
	}
}

// TestUnspeakable reads the features back.
func TestUnspeakable(t *testing.T) {
	p, _ := open(t, Packet)
	names, err := featureNames(p.fd, "in0")
	if err != nil {
		t.Fatal(err)
	}
	blocks := (len(names) + 31) / 32
	get := make([]byte, 8+16*blocks) // struct ethtool_gfeatures: available, requested, active, never changed
	binary.NativeEndian.PutUint32(get, unix.ETHTOOL_GFEATURES)
	binary.NativeEndian.PutUint32(get[4:], uint32(blocks))
	if err := ethtool(p.fd, "in0", get); err != nil {
		t.Fatal(err)
	}
	known := 0
	for i, name := range names {
		active := binary.NativeEndian.Uint32(get[8+i/32*16+8:])&(1<<(i%32)) != 0
		if slices.Contains(unspeakable, name) {
			known++
			if active {
				t.Errorf("%s is on", name)
			}
		}
		if (name == "tx-tcp-segmentation" || name == "tx-checksum-ip-generic") && !active {
			t.Errorf("%s is off", name)
		}
	}
	if known < 5 {
		t.Errorf("the kernel knows only %d of the names in %v", known, names)
	}
}
