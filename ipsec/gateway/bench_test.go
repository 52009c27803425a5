package gateway_test

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"pqlab/ipsec"
)

// BenchmarkTCP sends one TCP stream from node 0 to node 1: through each kind of tunnel, and beside it in the clear.
func BenchmarkTCP(b *testing.B) {
	b.Run("plain", func(b *testing.B) { stream(b, namespaces(b), outer4) })
	for _, kind := range kinds {
		b.Run(string(kind)+"/udp", func(b *testing.B) { stream(b, tunnel(b, kind, false, ipsec.UDP), inner4) })
		b.Run(string(kind)+"/udp/v6", func(b *testing.B) { stream(b, tunnel(b, kind, true, ipsec.UDP), inner6) })
		b.Run(string(kind)+"/esp", func(b *testing.B) { stream(b, tunnel(b, kind, false, ipsec.ESP), inner4) })
	}
}

func stream(b *testing.B, p *pair, addrs [2]netip.Addr) {
	var l *net.TCPListener
	check(b, p.ns[1].Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addrs[1], 0)))
		return err
	}))
	defer l.Close()
	var out *net.TCPConn
	check(b, p.ns[0].Do(func() (err error) {
		out, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
		return err
	}))
	in, err := l.AcceptTCP()
	check(b, err)
	defer in.Close()
	const chunk = 128 << 10
	buf := make([]byte, chunk)
	b.SetBytes(chunk)
	b.ResetTimer()
	go func() {
		defer out.Close()
		for range b.N {
			if _, err := out.Write(buf); err != nil {
				return
			}
		}
	}()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, make([]byte, 256<<10))
	b.StopTimer()
	if err != nil || n != int64(b.N)*chunk {
		b.Fatalf("%d of %d bytes arrived: %v", n, b.N*chunk, err)
	}
	b.ReportMetric(float64(n)*8/1e9/b.Elapsed().Seconds(), "Gbit/s")
}
