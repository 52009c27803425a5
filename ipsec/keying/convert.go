package keying

import (
	"errors"

	"pqlab/ipsec"
	"pqlab/pqc/exchange"
)

// keysOf moves the keys of a session into what a tunnel installs; the session is left without them.
func keysOf(s *exchange.Session) *ipsec.Keys {
	k := &ipsec.Keys{
		In:  ipsec.SA{SPI: s.In.SPI, Key: s.In.Key, Salt: s.In.Salt},
		Out: ipsec.SA{SPI: s.Out.SPI, Key: s.Out.Key, Salt: s.Out.Salt},
	}
	s.In.Wipe()
	s.Out.Wipe()
	return k
}

func reportOf(s *exchange.Session) Report {
	return Report{
		Tunnel: s.Tunnel, Initiator: s.Initiator, In: s.In.SPI, Out: s.Out.SPI,
		Suite: s.Suite.String(), Combiner: s.Combiner, TLSGroup: s.TLSGroup.String(), Transcript: s.Transcript,
		Timings: s.Timings, Traffic: s.Traffic,
	}
}

// busy tells a tunnel that the peer refused only because it is in the middle of another exchange.
func busy(err error) error {
	if errors.Is(err, exchange.Busy) {
		return errors.Join(ipsec.ErrBusy, err)
	}
	return err
}

// abandoned tells a tunnel that the peer gave the exchange up by itself. Whatever else it does wrong is a failure.
func abandoned(err error) error {
	if e := (*exchange.Error)(nil); errors.As(err, &e) && e.Remote && e.Alert == exchange.Cancelled {
		return errors.Join(ipsec.ErrAbandoned, err)
	}
	return err
}
