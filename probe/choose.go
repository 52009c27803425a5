package probe

import (
	"errors"
	"fmt"
	"slices"

	"pqlab/ipsec/gateway/port"
)

// ErrUnknownDataplane is of a name that is no dataplane's.
var ErrUnknownDataplane = errors.New("unknown dataplane")

// Plane is a dataplane that this machine has.
type Plane struct {
	Name string    // Gateway or XFRM
	Port port.Kind // of a gateway: TUN, or Packet where there is no TUN; Auto where nobody knows
}

// Names of dataplanes.
const (
	Gateway = "gateway" // ESP in user space
	XFRM    = "xfrm"    // the kernel's
)

// Dataplane returns what will carry a tunnel here. want is what the tunnel asks for: "auto" and "" mean the kernel's where
// it is, else the gateway. The error is a *NotSupported for a dataplane that cannot be had, and never is another taken in
// its place. Where a probe failed it is a *Failure, and "auto" does not guess.
func Dataplane(want string) (Plane, error) {
	return choose(want, find)
}

// Among is Dataplane by what All has found out.
func Among(found []Capability, want string) (Plane, error) {
	return choose(want, func(name string) error {
		i := slices.IndexFunc(found, func(c Capability) bool { return c.Name == name })
		if i < 0 {
			return fmt.Errorf("probe %q was not run", name)
		}
		return found[i].Why
	})
}

// choose is Dataplane with the probes given.
func choose(want string, find func(name string) error) (Plane, error) {
	var missing *NotSupported
	switch want {
	case "", "auto":
		err := kernelPlane(find)
		switch {
		case err == nil:
			return Plane{Name: XFRM}, nil
		case errors.As(err, &missing):
			return gatewayPlane(find)
		}
		return Plane{}, unsure("auto", err)
	case Gateway:
		return gatewayPlane(find)
	case XFRM:
		err := kernelPlane(find)
		switch {
		case err == nil:
			return Plane{Name: XFRM}, nil
		case errors.As(err, &missing):
			return Plane{}, missing.For("dataplane xfrm", "pqlab vm -- pqlab … runs it in a guest kernel that has it; "+withGateway)
		}
		return Plane{}, unsure(XFRM, err)
	case "offload":
		err := errors.New("this version of pqlab has no offload dataplane")
		return Plane{}, &NotSupported{What: "dataplane offload", Instead: "dataplane gateway does the same in software", Err: err}
	}
	return Plane{}, fmt.Errorf("%w %q: there are auto, gateway and xfrm", ErrUnknownDataplane, want)
}

const withGateway = "--dataplane gateway does the same in user space"

// unsure tells of a probe that failed what to do.
func unsure(want string, err error) error {
	return fmt.Errorf("dataplane %s: %w; try again, or else %s", want, err, withGateway)
}

// kernelPlane is nil where the kernel can carry tunnels. Where it certainly cannot, a probe that failed makes no difference.
func kernelPlane(find func(string) error) error {
	var failed error
	for _, name := range []string{xfrmPolicies, esp, nfTables} {
		err := find(name)
		var missing *NotSupported
		if errors.As(err, &missing) {
			return missing
		}
		if failed == nil {
			failed = err
		}
	}
	return failed
}

// gatewayPlane leaves it to the gateway to find out what its port can be where a probe failed.
func gatewayPlane(find func(string) error) (Plane, error) {
	noTUN := find(tun)
	if noTUN == nil {
		return Plane{Gateway, port.TUN}, nil
	}
	noPacket := find(packet)
	var lacksTUN, lacksPacket *NotSupported
	errors.As(noTUN, &lacksTUN)
	errors.As(noPacket, &lacksPacket)
	switch {
	case noPacket == nil && lacksTUN != nil:
		return Plane{Gateway, port.Packet}, nil
	case noPacket == nil:
		return Plane{Gateway, port.Auto}, nil
	case lacksTUN == nil:
		return Plane{}, fmt.Errorf("dataplane gateway: %w; try again", noTUN)
	case lacksPacket == nil:
		return Plane{}, fmt.Errorf("dataplane gateway: %w; try again", noPacket)
	}
	return Plane{}, &NotSupported{What: "dataplane gateway", Needs: "tun or packet", Err: errors.Join(noTUN, noPacket)}
}
