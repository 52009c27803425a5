package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"pqlab/internal/netns"
	"pqlab/ipsec"
	"pqlab/ipsec/gateway"
	"pqlab/ipsec/xfrm"
	"pqlab/probe"
)

// SAs is how many pairs of SAs, one inbound and one outbound, a dataplane installs and removes in a second.
type SAs struct {
	Dataplane string `json:"dataplane"`
	// Caveat says what the figures must not be taken for; empty where they may be taken for the machine's.
	Caveat string    `json:"caveat,omitempty"`
	Runs   []float64 `json:"runs_pairs_per_second"`
	Median float64   `json:"pairs_per_second"`
}

// GoalSAs is how many pairs a second the kernel's dataplane is meant to reach at least.
const GoalSAs = 1000

// MeasureSAs replaces the SAs of one tunnel, which carries nothing, for d in each run. dataplane is "auto" (or empty),
// "gateway" or "xfrm".
func MeasureSAs(ctx context.Context, dataplane string, runs int, d time.Duration, progress func(string)) (SAs, error) {
	out := SAs{Caveat: caveat()}
	plane, err := probe.Dataplane(dataplane)
	if err != nil {
		return out, err
	}
	for i := range runs {
		progress(fmt.Sprintf("run %d of %d", i+1, runs))
		rate, err := pairsOfSAs(ctx, plane, d, &out.Dataplane)
		if err != nil {
			return out, err
		}
		out.Runs = append(out.Runs, rate)
	}
	out.Median = median(append([]float64(nil), out.Runs...))
	return out, nil
}

// pairsOfSAs measures from the first SA until none is left.
func pairsOfSAs(ctx context.Context, plane probe.Plane, d time.Duration, name *string) (_ float64, err error) {
	nss, err := netns.New(1)
	if err != nil {
		return 0, err
	}
	defer nss[0].Close()
	p := ipsec.Policy{
		Tunnel: "t", Local: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/32")}, Remote: []netip.Prefix{netip.MustParsePrefix("10.2.0.1/32")},
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), PathMTU: 1500,
	}
	if err := own(nss[0], p.Local[0], netip.PrefixFrom(p.Src, 24)); err != nil {
		return 0, err
	}
	var dp ipsec.Dataplane
	if plane.Name == probe.XFRM {
		dp, err = xfrm.New(xfrm.Config{Namespace: nss[0]})
	} else {
		dp, err = gateway.New(gateway.Config{Namespace: nss[0], Port: plane.Port})
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, dp.Close()) }()
	*name = dp.Name()
	if err := dp.AddTunnel(p); err != nil {
		return 0, err
	}
	began := time.Now()
	n := uint32(0)
	for ; time.Since(began) < d || n == 0; n++ {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := replace(dp, p.Tunnel, n); err != nil {
			return 0, err
		}
	}
	if err := dp.RemoveTunnel(p.Tunnel); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// replace makes the n-th pair before it breaks the one before, as a rekey does.
func replace(dp ipsec.Dataplane, tunnel string, n uint32) error {
	const inbound, outbound = 1 << 20, 1 << 30
	in, out := ipsec.SA{SPI: inbound + n}, ipsec.SA{SPI: outbound + n}
	for _, sa := range []*ipsec.SA{&in, &out} {
		rand.Read(sa.Key[:])
		rand.Read(sa.Salt[:])
	}
	if err := errors.Join(dp.AddInbound(tunnel, &in), dp.SetOutbound(tunnel, &out)); err != nil || n == 0 {
		return err
	}
	return errors.Join(dp.RemoveInbound(tunnel, inbound+n-1), dp.RemoveOutbound(tunnel, outbound+n-1))
}

// own gives lo addresses.
func own(ns *netns.Namespace, addresses ...netip.Prefix) error {
	h, err := ns.Netlink()
	if err != nil {
		return err
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a.String())
		if err != nil {
			return err
		}
		if err := h.AddrAdd(lo, addr); err != nil {
			return fmt.Errorf("lo: address %v: %w", a, err)
		}
	}
	return nil
}
