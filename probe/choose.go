package probe

import (
	"errors"
	"fmt"

	"pqlab/ipsec/gateway/port"
)

// ErrUnknownDataplane is of a name that is no dataplane's.
var ErrUnknownDataplane = errors.New("unknown dataplane")

// Dataplane returns the inner port with which the gateway, the only dataplane of this version, will work here: TUN, or
// Packet where there is no TUN. want is what a tunnel asks for: "auto" and "" mean the best that there is. The error is
// a *NotSupported for a dataplane that cannot be had, and never is another taken in its place.
func Dataplane(want string) (port.Kind, error) {
	return choose(want, find)
}

// choose is Dataplane with the probes given.
func choose(want string, find func(name string) error) (port.Kind, error) {
	const unbuilt = "this version of pqlab has no %s dataplane"
	switch want {
	case "", "auto", "gateway":
		noTUN := find(tun)
		if noTUN == nil {
			return port.TUN, nil
		}
		noPacket := find(packet)
		if noPacket == nil {
			return port.Packet, nil
		}
		return "", &NotSupported{What: "dataplane gateway", Needs: "tun or packet", Err: errors.Join(noTUN, noPacket)}
	case "xfrm":
		err := fmt.Errorf(unbuilt, want)
		if noESP := find(esp); noESP != nil {
			err = fmt.Errorf("%w, and the kernel could not serve one: %w", err, noESP)
		}
		return "", &NotSupported{What: "dataplane xfrm", Instead: "dataplane gateway would work with the same tunnels", Err: err}
	case "offload":
		return "", &NotSupported{What: "dataplane offload", Instead: "dataplane gateway does the same in software", Err: fmt.Errorf(unbuilt, want)}
	}
	return "", fmt.Errorf("%w %q: there are auto and gateway", ErrUnknownDataplane, want)
}
