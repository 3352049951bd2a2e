# Almighty cannot be told an address: loaded before it, this has every server listen on loopback.
package Loopback;
use strict;
use warnings;
use IO::Socket::INET;

my $new = \&IO::Socket::INET::new;
no warnings 'redefine';
*IO::Socket::INET::new = sub {
    my ($class, %asked) = @_;
    $asked{LocalAddr} = '127.0.0.1' if $asked{Listen};
    return $new->($class, %asked);
};
1;
