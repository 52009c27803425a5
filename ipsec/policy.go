package ipsec

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Errors of every Dataplane that a caller may decide on, with errors.Is.
var (
	// ErrPolicy: a policy that cannot be installed.
	ErrPolicy = errors.New("bad policy")
	// ErrUnknown: there is no such tunnel or SA.
	ErrUnknown = errors.New("not installed")
	// ErrExists: there is one of that name or SPI.
	ErrExists = errors.New("installed already")
	// ErrSPI: an SPI that RFC 4303 reserves.
	ErrSPI = errors.New("SPI is reserved")
)

// Overhead is what the outer headers before the ESP header take, in bytes.
func (p *Policy) Overhead() int {
	n := 20
	if p.Dst.Is6() {
		n = 40
	}
	if p.Encapsulation == UDP {
		n += 8
	}
	return n
}

// espOverhead is what ESP adds besides padding to four bytes: SPI, sequence number, IV and ICV (RFC 4106); the two bytes
// of the trailer count as padded.
const espOverhead = 4 + 4 + 8 + 16

// InnerMTU is the largest inner packet whose ESP packet, padding included, fits an outer packet of path bytes.
func (p *Policy) InnerMTU(path int) int {
	room := path - p.Overhead() - espOverhead
	return (room &^ 3) - 2
}

// Protects says whether the policy is for packets from src to dst, which leave.
func (p *Policy) Protects(src, dst netip.Addr) bool {
	return contains(p.Local, src) && contains(p.Remote, dst)
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Conflict refuses a policy for traffic that another one is for.
func (p *Policy) Conflict(with *Policy) error {
	for _, remote := range p.Remote {
		for _, local := range p.Local {
			if slices.Contains(with.Remote, remote) && slices.Contains(with.Local, local) {
				return fmt.Errorf("tunnel %s: %w: %v to %v is tunnel %s's", p.Tunnel, ErrPolicy, local, remote, with.Tunnel)
			}
		}
	}
	return nil
}

// Check refuses a policy that could not work, by ErrPolicy, and gives a copy with its prefixes in canonical form.
func (p Policy) Check() (Policy, error) {
	bad := func(format string, args ...any) (Policy, error) {
		return p, fmt.Errorf("tunnel %s: %w: %s", p.Tunnel, ErrPolicy, fmt.Sprintf(format, args...))
	}
	if p.Tunnel == "" {
		return bad("it has no name")
	}
	if !p.Src.IsValid() || !p.Dst.IsValid() || p.Src.Is4() != p.Dst.Is4() || p.Src.Is4In6() || p.Dst.Is4In6() ||
		p.Src.Zone() != "" || p.Dst.Zone() != "" {
		return bad("outer addresses %v and %v are not two of one family", p.Src, p.Dst)
	}
	if p.Encapsulation != UDP && p.Encapsulation != ESP {
		return bad("encapsulation %d is neither UDP nor ESP", p.Encapsulation)
	}
	p.Local, p.Remote = slices.Clone(p.Local), slices.Clone(p.Remote)
	var v4, v6 [2]bool
	for side, prefixes := range [...][]netip.Prefix{p.Local, p.Remote} {
		for i, prefix := range prefixes {
			if !prefix.IsValid() || prefix.Addr().Is4In6() {
				return bad("subnet %v", prefix)
			}
			prefixes[i] = prefix.Masked()
			if prefix.Addr().Is4() {
				v4[side] = true
			} else {
				v6[side] = true
			}
		}
	}
	if v4[0] != v4[1] || v6[0] != v6[1] || !v4[0] && !v6[0] {
		return bad("subnets %v and %v have no counterparts of their family", p.Local, p.Remote)
	}
	if p.Protects(p.Src, p.Dst) {
		return bad("it would protect its own ESP packets from %v to %v", p.Src, p.Dst)
	}
	least, what := 68, "IPv4 (RFC 791)"
	if v6[0] {
		least, what = 1280, "IPv6 (RFC 8200 section 5)"
	}
	if p.PathMTU > 65535 || p.InnerMTU(p.PathMTU) < least {
		return bad("path MTU %d leaves %d bytes for an inner packet; %s needs %d", p.PathMTU, p.InnerMTU(p.PathMTU), what, least)
	}
	return p, nil
}
