package tunnel_test

import (
	"testing"

	"pqlab/suites/testlab"
	"pqlab/suites/tunnel"
)

func TestMain(m *testing.M)   { testlab.Main(m) }
func TestTunnel(t *testing.T) { testlab.Run(t, "tunnel", tunnel.Specs) }
