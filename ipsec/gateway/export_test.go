package gateway

import "weak"

// Inbound is an SA's state, for specs that watch it go.
func (g *Gateway) Inbound(spi uint32) weak.Pointer[inboundSA] {
	return weak.Make((*g.inbound.Load())[spi])
}
