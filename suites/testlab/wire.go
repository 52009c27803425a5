package testlab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/capture"
	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/topology"
)

// Recording is a capture of one link into memory.
type Recording struct {
	tap  *capture.Tap
	file *capture.File

	mu      sync.Mutex
	written []byte // what file has written
}

func (r *Recording) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = append(r.written, b...)
	return len(b), nil
}

// Record begins to capture what passes a link in both directions.
func Record(l *lab.Lab, link string) *Recording {
	GinkgoHelper()
	r := new(Recording)
	r.file = capture.NewFile(r, "")
	p := planned(l, link)
	var err error
	r.tap, err = capture.Open(l.Node(p.A.Node).Namespace(), p.A.Interface, capture.Options{File: r.file})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { _, err := r.tap.Close(); return err })
	return r
}

// Stop ends the capture and gives every packet of it: it fails if one was missed.
func (r *Recording) Stop() []gopacket.Packet {
	GinkgoHelper()
	stats, err := r.tap.Close()
	Expect(err).NotTo(HaveOccurred())
	Expect(stats.Dropped).To(BeZero(), "packets that the capture had no room for")
	packets := r.packets()
	Expect(len(packets)).To(Equal(int(stats.Captured)))
	return packets
}

// ESP waits until the recording has n ESP packets from an address, and ends it. It gives them from the ESP header on, and
// the outer headers of the last. Where the kernel passed many as one, each has size bytes.
func (r *Recording) ESP(ctx context.Context, from netip.Addr, size, n int) (o Outer, packets [][]byte) {
	GinkgoHelper()
	read := func(all []gopacket.Packet) int {
		GinkgoHelper()
		packets = nil
		for _, p := range all {
			outer, esp, ok := ESP(p)
			if !ok || outer.Src != from {
				continue
			}
			for o = outer; len(esp) > 0; esp = esp[size:] {
				Expect(len(esp)).To(BeNumerically(">=", size))
				packets = append(packets, esp[:size:size])
			}
		}
		return len(packets)
	}
	Eventually(ctx, func() int {
		Expect(r.file.Flush()).To(Succeed())
		return read(r.packets())
	}).Should(BeNumerically(">=", n), "ESP packets on the link")
	Expect(read(r.Stop())).To(Equal(n), "ESP packets on the link")
	return o, packets
}

func (r *Recording) packets() (packets []gopacket.Packet) {
	GinkgoHelper()
	r.mu.Lock()
	written := bytes.NewReader(r.written)
	r.mu.Unlock()
	file, err := pcapgo.NewNgReader(written, pcapgo.DefaultNgReaderOptions)
	Expect(err).NotTo(HaveOccurred())
	for {
		data, info, err := file.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return packets
		}
		Expect(err).NotTo(HaveOccurred())
		p := gopacket.NewPacket(data, file.LinkType(), gopacket.DecodeOptions{NoCopy: true, Lazy: true})
		p.Metadata().CaptureInfo = info
		packets = append(packets, p)
	}
}

// Outer is what a packet has around its ESP header.
type Outer struct {
	Src, Dst      netip.Addr
	TOS           uint8
	Encapsulation ipsec.Encapsulation
}

// ESP gives the outer headers of a captured packet and what follows them from the ESP header on; not ok where it is
// none. What the kernel passed as one packet may be many, one after the other.
func ESP(p gopacket.Packet) (o Outer, esp []byte, ok bool) {
	var next layers.IPProtocol
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		o.Src, o.Dst, o.TOS, next, esp = addr(ip.SrcIP), addr(ip.DstIP), ip.TOS, ip.Protocol, ip.Payload
	case *layers.IPv6:
		o.Src, o.Dst, o.TOS, next, esp = addr(ip.SrcIP), addr(ip.DstIP), ip.TrafficClass, ip.NextHeader, ip.Payload
	default:
		return o, nil, false
	}
	switch {
	case next == layers.IPProtocolESP:
		o.Encapsulation = ipsec.ESP
	case next == layers.IPProtocolUDP && len(esp) >= 12 &&
		binary.BigEndian.Uint32(esp) == ipsec.UDPPort<<16|ipsec.UDPPort && binary.BigEndian.Uint32(esp[8:]) != 0:
		o.Encapsulation = ipsec.UDP
		esp = esp[8:]
	default:
		return o, nil, false
	}
	return o, esp, true
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// Injector puts packets on a link as if the node at one end had sent them, past everything that the node is.
type Injector struct {
	fd       int
	src, dst net.HardwareAddr
}

// Inject makes an injector for a link, in the place of one of its nodes.
func Inject(l *lab.Lab, link, as string) *Injector {
	GinkgoHelper()
	near, far := Ends(l, link, as)
	i := &Injector{src: device(l, near).Attrs().HardwareAddr, dst: device(l, far).Attrs().HardwareAddr}
	index := device(l, near).Attrs().Index
	Expect(l.Node(as).Namespace().Do(func() (err error) {
		if i.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(i.fd, &unix.SockaddrLinklayer{Ifindex: index})
	})).To(Succeed())
	DeferCleanup(func() error { return unix.Close(i.fd) })
	return i
}

// ESP sends ESP packets with the outer headers given.
func (i *Injector) ESP(o Outer, packets ...[]byte) {
	GinkgoHelper()
	for _, esp := range packets {
		if o.Encapsulation == ipsec.ESP {
			i.IP(o, layers.IPProtocolESP, gopacket.Payload(esp))
			continue
		}
		i.IP(o, layers.IPProtocolUDP, &layers.UDP{SrcPort: ipsec.UDPPort, DstPort: ipsec.UDPPort}, gopacket.Payload(esp))
	}
}

// IP sends an IP packet between the addresses of o.
func (i *Injector) IP(o Outer, next layers.IPProtocol, payload ...gopacket.SerializableLayer) {
	GinkgoHelper()
	i.Frame(o.Src.Is6(), Packet(o, next, payload...))
}

// Frame sends an IP packet as it is.
func (i *Injector) Frame(v6 bool, ip []byte) {
	GinkgoHelper()
	frame := append(append(append(make([]byte, 0, 14+len(ip)), i.dst...), i.src...), 0x08, 0x00)
	if v6 {
		frame[12], frame[13] = 0x86, 0xdd
	}
	Expect(unix.Send(i.fd, append(frame, ip...), 0)).To(Succeed())
}

// Packet is an IP packet with right lengths and checksums.
func Packet(o Outer, next layers.IPProtocol, payload ...gopacket.SerializableLayer) []byte {
	GinkgoHelper()
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	if o.Src.Is4() {
		h := &layers.IPv4{
			Version: 4, TTL: 64, TOS: o.TOS, Protocol: next, Flags: layers.IPv4DontFragment,
			SrcIP: o.Src.AsSlice(), DstIP: o.Dst.AsSlice(),
		}
		ip, network = h, h
	} else {
		h := &layers.IPv6{
			Version: 6, HopLimit: 64, TrafficClass: o.TOS, NextHeader: next, SrcIP: o.Src.AsSlice(), DstIP: o.Dst.AsSlice(),
		}
		ip, network = h, h
	}
	if udp, ok := payload[0].(*layers.UDP); ok {
		Expect(udp.SetNetworkLayerForChecksum(network)).To(Succeed())
	}
	b := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	Expect(gopacket.SerializeLayers(b, options, append([]gopacket.SerializableLayer{ip}, payload...)...)).To(Succeed())
	return bytes.Clone(b.Bytes())
}

// Divert makes what a node sends to its neighbour on a link leave it and arrive at nobody, so that a recording has it and
// the neighbour has not. It lasts until the function that it returns is called.
func Divert(l *lab.Lab, link, from string) (restore func()) {
	GinkgoHelper()
	near, far := Ends(l, link, from)
	h, err := l.Node(from).Namespace().Netlink()
	Expect(err).NotTo(HaveOccurred())
	set := func(to net.HardwareAddr) {
		GinkgoHelper()
		for _, a := range far.Addresses {
			Expect(h.NeighSet(&netlink.Neigh{
				LinkIndex: device(l, near).Attrs().Index, Family: family(a.Addr()), State: netlink.NUD_PERMANENT,
				IP: a.Addr().AsSlice(), HardwareAddr: to,
			})).To(Succeed())
		}
	}
	set(net.HardwareAddr{0x02, 0, 0, 0, 0xde, 0xad})
	return func() { GinkgoHelper(); set(device(l, far).Attrs().HardwareAddr) }
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// End is an interface of a node.
type End struct {
	Node string
	topology.Interface
}

// Ends are the ends of a link, that at the node given first.
func Ends(l *lab.Lab, link, node string) (near, far End) {
	GinkgoHelper()
	p := planned(l, link)
	a, b := end(l, p.A), end(l, p.B)
	if p.B.Node == node {
		return b, a
	}
	Expect(p.A.Node).To(Equal(node))
	return a, b
}

func planned(l *lab.Lab, link string) topology.PlannedLink {
	GinkgoHelper()
	for _, p := range l.Plan.Links {
		if p.Name == link {
			return p
		}
	}
	Fail("no link " + link)
	return topology.PlannedLink{}
}

func end(l *lab.Lab, e topology.End) End {
	GinkgoHelper()
	for _, i := range l.Node(e.Node).Plan.Interfaces {
		if i.Name == e.Interface {
			return End{e.Node, i}
		}
	}
	Fail("no interface " + e.Interface + " at " + e.Node)
	return End{}
}

func device(l *lab.Lab, e End) netlink.Link {
	GinkgoHelper()
	h, err := l.Node(e.Node).Namespace().Netlink()
	Expect(err).NotTo(HaveOccurred())
	d, err := h.LinkByName(e.Name)
	Expect(err).NotTo(HaveOccurred())
	return d
}

// Listen opens a UDP socket in a node, until the spec ends. When ctx ends nothing waits at it any longer.
func Listen(ctx context.Context, l *lab.Lab, node string, at netip.AddrPort) (c *net.UDPConn) {
	GinkgoHelper()
	Expect(l.Node(node).Namespace().Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})).To(Succeed())
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	DeferCleanup(func() error { stop(); return c.Close() })
	return c
}
