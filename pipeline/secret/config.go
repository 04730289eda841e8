package secret

import "fmt"

// Config has the keys that seal subscriptions' secrets.
type Config struct {
	// Keys seal the secrets that subscriptions hold in the registry (AES-256-GCM):
	// id:base64 of 32 random bytes, or file:/path with the same. The first one
	// seals, all open; to rotate, put a new one in front and run hookline subs
	// rotate-keys. Empty: subscriptions may only refer to secrets (env:, file:).
	Keys Secret `env:"SECRET_KEYS"`
}

// Validate says what is wrong with the keys, without showing them.
func (c *Config) Validate() error {
	_, err := c.Keyring()
	return err
}

// Keyring gives the keys; nil where there are none.
func (c *Config) Keyring() (*Keyring, error) {
	k, err := ParseKeys(c.Keys.Reveal())
	if err != nil {
		return nil, fmt.Errorf("HOOKLINE_SECRET_KEYS: %w", err)
	}
	return k, nil
}
