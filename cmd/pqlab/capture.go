package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// secretFlags say what a capture has of secrets.
type secretFlags struct {
	tls, keys bool
	set       *pflag.FlagSet
}

func addSecretFlags(c *cobra.Command) *secretFlags {
	f := &secretFlags{set: c.Flags()}
	f.set.BoolVar(&f.tls, "tls-secrets", true, "put into a capture what decrypts the key exchanges' TLS; it does not give the keys of ESP")
	f.set.BoolVar(&f.keys, "export-keys", false, "write the ESP keys beside a capture, and comments where keys change")
	return f
}

// need refuses the flags where there is no capture.
func (f *secretFlags) need(flag string) error {
	for _, name := range []string{"tls-secrets", "export-keys"} {
		if f.set.Changed(name) {
			return usageError{fmt.Errorf("--%s: there is no capture that it could be for; it goes with %s", name, flag)}
		}
	}
	return nil
}
