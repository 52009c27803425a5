package probe

import (
	"errors"
	"fmt"

	"pqlab/ipsec/gateway/port"
)

// ErrUnknownDataplane is of a name that is no dataplane's.
var ErrUnknownDataplane = errors.New("unknown dataplane")

// Plane is a dataplane that this machine has.
type Plane struct {
	Name string    // Gateway or XFRM
	Port port.Kind // of a gateway: TUN, or Packet where there is no TUN
}

// Names of dataplanes.
const (
	Gateway = "gateway" // ESP in user space
	XFRM    = "xfrm"    // the kernel's
)

// Dataplane returns what will carry a tunnel here. want is what the tunnel asks for: "auto" and "" mean the kernel's where
// it is, else the gateway. The error is a *NotSupported for a dataplane that cannot be had, and never is another taken in
// its place.
func Dataplane(want string) (Plane, error) {
	return choose(want, find)
}

// choose is Dataplane with the probes given.
func choose(want string, find func(name string) error) (Plane, error) {
	switch want {
	case "", "auto":
		if kernelPlane(find) == nil {
			return Plane{Name: XFRM}, nil
		}
		return gatewayPlane(find)
	case Gateway:
		return gatewayPlane(find)
	case XFRM:
		if err := kernelPlane(find); err != nil {
			return Plane{}, &NotSupported{What: "dataplane xfrm", Instead: "--dataplane gateway would work with the same tunnels", Err: err}
		}
		return Plane{Name: XFRM}, nil
	case "offload":
		err := errors.New("this version of pqlab has no offload dataplane")
		return Plane{}, &NotSupported{What: "dataplane offload", Instead: "dataplane gateway does the same in software", Err: err}
	}
	return Plane{}, fmt.Errorf("%w %q: there are auto, gateway and xfrm", ErrUnknownDataplane, want)
}

// kernelPlane is nil where the kernel can carry tunnels.
func kernelPlane(find func(string) error) error {
	for _, name := range []string{xfrmPolicies, esp, nfTables} {
		if err := find(name); err != nil {
			return err
		}
	}
	return nil
}

func gatewayPlane(find func(string) error) (Plane, error) {
	noTUN := find(tun)
	if noTUN == nil {
		return Plane{Gateway, port.TUN}, nil
	}
	noPacket := find(packet)
	if noPacket == nil {
		return Plane{Gateway, port.Packet}, nil
	}
	return Plane{}, &NotSupported{What: "dataplane gateway", Needs: "tun or packet", Err: errors.Join(noTUN, noPacket)}
}
