// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The two declarative macros of [`super`]: `structure!` for what has fields, `codes!` for numbers
//! that have names.

/// Declares views of big-endian structures.
///
/// ```text
/// structure! {
///     /// What it is for.
///     pub struct AllocPdOut = "alloc_pd_out", 16 {
///         /// What it means.
///         pd: field(72, 24, u32);
///     }
/// }
/// ```
///
/// After the kernel header's name stands the size in bytes of all but the tail, then, for the input
/// of a command, `opcode` and its name in [`Opcode`](super::Opcode). Fields stand in the order of
/// their offsets, which are in bits from the most significant bit of the first byte:
///
/// * `field(offset, bits, Type)`: a number, a `bool` or a code.
/// * `newer(offset, bits, Type)`: the same, of a kernel later than the golden file's.
/// * `array(offset, bits of an element, elements, Type)`: a few numbers, by value.
/// * `bytes(offset, length in bytes)`: a slice.
/// * `view(offset, Structure)`: a structure inside this one.
/// * `tail(bits of an element)`: whatever follows the fixed part, as a slice.
macro_rules! structure {
    ($(
        $(#[$meta:meta])*
        pub struct $View:ident = $name:literal, $bytes:literal $(, opcode $opcode:ident)? {
            $( $(#[$field_meta:meta])* $field:ident: $kind:ident $args:tt; )*
        }
    )*) => {
        /// Those that are declared here.
        pub(super) const STRUCTURES: &[$crate::layout::Structure] = &[$(
            $crate::layout::Structure {
                name: $View::NAME,
                bytes: $View::BYTES,
                fields: $View::FIELDS,
            },
        )*];

        $(
        $(#[$meta])*
        ///
        #[doc = concat!("`", $name, "` in the kernel's header, ", $bytes, " bytes.")]
        #[derive(Clone, Copy)]
        pub struct $View<B = [u8; $bytes]>(pub(super) B);

        impl $View {
            /// The kernel header's name of the structure.
            pub const NAME: &'static str = $name;
            /// Its length in bytes, without a tail.
            pub const BYTES: usize = $bytes;
            /// What is in it, in the order of the offsets.
            pub const FIELDS: &'static [$crate::layout::Field] =
                &[$( $crate::layout::macros::entry!($View $bytes, $field, $kind $args) ),*];
            $(
                /// Which command this is the input of.
                pub const OPCODE: $crate::layout::Opcode = $crate::layout::Opcode::$opcode;

                /// All zero but for the opcode.
                pub fn command() -> Self {
                    let mut command = Self::zeroed();
                    command.set_opcode(Self::OPCODE);
                    command
                }
            )?

            /// The structure with nothing set.
            pub const fn zeroed() -> Self {
                Self([0; $bytes])
            }
        }

        const _: () = $crate::layout::check($View::BYTES, $View::FIELDS);

        impl<B: AsRef<[u8]>> $View<B> {
            /// A view of bytes that begin with the structure.
            ///
            /// # Errors
            ///
            /// [`LayoutError::TooShort`](crate::layout::LayoutError::TooShort): there are fewer
            /// bytes than the structure has.
            pub fn new(bytes: B) -> Result<Self, $crate::layout::LayoutError> {
                $crate::layout::long_enough($name, $bytes, bytes.as_ref().len())?;
                Ok(Self(bytes))
            }

            /// All the bytes, a tail included.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_ref()
            }

            $( $crate::layout::macros::getter!($(#[$field_meta])* $bytes, $field, $kind $args); )*
        }

        impl<B: AsMut<[u8]>> $View<B> {
            /// All the bytes, a tail included.
            pub fn as_bytes_mut(&mut self) -> &mut [u8] {
                self.0.as_mut()
            }

            $( $crate::layout::macros::setter!($bytes, $field, $kind $args); )*
        }

        impl<B> $View<B> {
            /// The bytes it was a view of.
            pub fn into_inner(self) -> B {
                self.0
            }
        }

        impl<B: AsRef<[u8]>> std::fmt::Debug for $View<B> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::layout::debug(f, stringify!($View), $View::FIELDS, self.0.as_ref())
            }
        }
        )*
    };
}

/// A field as [`Field`](super::Field) has it.
macro_rules! entry {
    ($View:ident $end:literal, $field:ident, field ($at:literal, $bits:literal, $t:ty)) => {
        $crate::layout::macros::entry!(@ $View, $field, false, $at, $bits, $t)
    };
    ($View:ident $end:literal, $field:ident, newer ($at:literal, $bits:literal, $t:ty)) => {
        $crate::layout::macros::entry!(@ $View, $field, true, $at, $bits, $t)
    };
    (@ $View:ident, $field:ident, $newer:literal, $at:literal, $bits:literal, $t:ty) => {{
        const { assert!($bits <= <$t as $crate::layout::Value>::BITS, "the type is too narrow") };
        $crate::layout::Field {
            name: $crate::layout::unraw(stringify!($field)),
            bit_offset: $at,
            bits: $bits,
            newer: $newer,
            kind: $crate::layout::FieldKind::Value {
                get: |bytes| $crate::layout::Value::to_bits($View(bytes).$field()),
                set: |bytes, value| {
                    pastey::paste! {
                        $View(bytes).[<set_ $field>]($crate::layout::Value::from_bits(value));
                    }
                },
            },
        }
    }};
    (
        $View:ident $end:literal, $field:ident,
        array ($at:literal, $bits:literal, $n:literal, $t:ty)
    ) => {
        $crate::layout::Field::new(
            stringify!($field),
            $at,
            $bits,
            $crate::layout::FieldKind::Array { elements: $n },
        )
    };
    ($View:ident $end:literal, $field:ident, bytes ($at:literal, $n:literal)) => {
        $crate::layout::Field::new(
            stringify!($field),
            $at,
            8,
            $crate::layout::FieldKind::Array { elements: $n },
        )
    };
    ($View:ident $end:literal, $field:ident, view ($at:literal, $Inner:ident)) => {
        $crate::layout::Field::new(
            stringify!($field),
            $at,
            $Inner::BYTES as u32 * 8,
            $crate::layout::FieldKind::View { name: $Inner::NAME },
        )
    };
    ($View:ident $end:literal, $field:ident, tail ($bits:literal)) => {
        $crate::layout::Field::new(
            stringify!($field),
            $end * 8,
            $bits,
            $crate::layout::FieldKind::Tail,
        )
    };
}

macro_rules! getter {
    ($(#[$meta:meta])* $end:literal, $field:ident, newer $args:tt) => {
        $crate::layout::macros::getter!($(#[$meta])* $end, $field, field $args);
    };
    (
        $(#[$meta:meta])* $end:literal, $field:ident, field ($at:literal, $bits:literal, $t:ty)
    ) => {
        $(#[$meta])*
        ///
        #[doc = concat!("Bit ", $at, ", ", $bits, " wide.")]
        #[inline]
        pub fn $field(&self) -> $t {
            let bits = $crate::layout::bits::read(self.0.as_ref(), $at, $bits);
            $crate::layout::Value::from_bits(bits)
        }
    };
    (
        $(#[$meta:meta])* $end:literal, $field:ident,
        array ($at:literal, $bits:literal, $n:literal, $t:ty)
    ) => {
        $(#[$meta])*
        ///
        #[doc = concat!("From bit ", $at, ", ", $n, " of ", $bits, " bits.")]
        pub fn $field(&self) -> [$t; $n] {
            std::array::from_fn(|i| {
                let at = $at + i as u32 * $bits;
                $crate::layout::Value::from_bits(
                    $crate::layout::bits::read(self.0.as_ref(), at, $bits),
                )
            })
        }
    };
    ($(#[$meta:meta])* $end:literal, $field:ident, bytes ($at:literal, $n:literal)) => {
        $(#[$meta])*
        ///
        #[doc = concat!("From bit ", $at, ", ", $n, " bytes.")]
        pub fn $field(&self) -> &[u8] {
            self.0.as_ref().get($at / 8..$at / 8 + $n).unwrap_or_default()
        }
    };
    ($(#[$meta:meta])* $end:literal, $field:ident, view ($at:literal, $Inner:ident)) => {
        $(#[$meta])*
        ///
        #[doc = concat!("From bit ", $at, ".")]
        pub fn $field(&self) -> $Inner<&[u8]> {
            $Inner(self.0.as_ref().get($at / 8..$at / 8 + $Inner::BYTES).unwrap_or_default())
        }
    };
    ($(#[$meta:meta])* $end:literal, $field:ident, tail ($bits:literal)) => {
        $(#[$meta])*
        ///
        #[doc = concat!("From byte ", $end, " to the end, elements of ", $bits, " bits.")]
        pub fn $field(&self) -> &[u8] {
            self.0.as_ref().get($end..).unwrap_or_default()
        }
    };
}

macro_rules! setter {
    ($end:literal, $field:ident, newer $args:tt) => {
        $crate::layout::macros::setter!($end, $field, field $args);
    };
    ($end:literal, $field:ident, field ($at:literal, $bits:literal, $t:ty)) => { pastey::paste! {
        #[doc = concat!(
            "Sets `", stringify!($field), "`; bits above the lowest ", $bits, " are left out."
        )]
        #[inline]
        pub fn [<set_ $field>](&mut self, value: $t) -> &mut Self {
            let bits = $crate::layout::Value::to_bits(value);
            $crate::layout::bits::write(self.0.as_mut(), $at, $bits, bits);
            self
        }
    } };
    (
        $end:literal, $field:ident, array ($at:literal, $bits:literal, $n:literal, $t:ty)
    ) => { pastey::paste! {
        #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
        pub fn [<set_ $field>](&mut self, values: [$t; $n]) -> &mut Self {
            for (i, value) in values.into_iter().enumerate() {
                let bits = $crate::layout::Value::to_bits(value);
                $crate::layout::bits::write(self.0.as_mut(), $at + i as u32 * $bits, $bits, bits);
            }
            self
        }
    } };
    ($end:literal, $field:ident, bytes ($at:literal, $n:literal)) => { pastey::paste! {
        #[doc = concat!("[`", stringify!($field), "`](Self::", stringify!($field), "), to write.")]
        pub fn [<$field _mut>](&mut self) -> &mut [u8] {
            self.0.as_mut().get_mut($at / 8..$at / 8 + $n).unwrap_or_default()
        }
    } };
    ($end:literal, $field:ident, view ($at:literal, $Inner:ident)) => { pastey::paste! {
        #[doc = concat!("[`", stringify!($field), "`](Self::", stringify!($field), "), to write.")]
        pub fn [<$field _mut>](&mut self) -> $Inner<&mut [u8]> {
            let range = $at / 8..$at / 8 + $Inner::BYTES;
            $Inner(self.0.as_mut().get_mut(range).unwrap_or_default())
        }
    } };
    ($end:literal, $field:ident, tail ($bits:literal)) => { pastey::paste! {
        #[doc = concat!("[`", stringify!($field), "`](Self::", stringify!($field), "), to write.")]
        pub fn [<$field _mut>](&mut self) -> &mut [u8] {
            self.0.as_mut().get_mut($end..).unwrap_or_default()
        }
    } };
}

/// Declares numbers that have names: an enum that keeps what it does not know as `Other`. After
/// the type stands what the names begin with in the kernel's headers; nothing, where they are in none.
macro_rules! codes {
    ($(
        $(#[$meta:meta])*
        pub enum $Code:ident: $repr:ident, $prefix:literal {
            $( $(#[$variant_meta:meta])* $variant:ident = $number:literal, $name:literal; )*
        }
    )*) => {
        /// What the names of each begin with in the kernel's headers, the rest of them, and the
        /// numbers.
        #[cfg(feature = "verify")]
        pub(crate) const NUMBERS: &[(&str, &[(&str, u64)])] =
            &[$( ($prefix, &[$( ($name, $number) ),*]), )*];

        $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $Code {
            $(
                $(#[$variant_meta])*
                #[doc = concat!("`", $name, "`, ", stringify!($number), ".")]
                $variant,
            )*
            /// One without a name here. [`From`] makes this of unknown numbers only.
            Other($repr),
        }

        impl $Code {
            /// All that have a name.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// The name that the kernel has for it; `None` for one that is not known.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$variant => Some($name), )*
                    Self::Other(_) => None,
                }
            }
        }

        impl From<$repr> for $Code {
            fn from(number: $repr) -> Self {
                match number {
                    $( $number => Self::$variant, )*
                    other => Self::Other(other),
                }
            }
        }

        impl From<$Code> for $repr {
            fn from(code: $Code) -> Self {
                match code {
                    $( $Code::$variant => $number, )*
                    $Code::Other(number) => number,
                }
            }
        }

        impl std::fmt::Display for $Code {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#x}", <$repr>::from(*self)),
                }
            }
        }

        impl $crate::layout::Value for $Code {
            const BITS: u32 = $repr::BITS;

            #[inline]
            fn from_bits(bits: u64) -> Self {
                Self::from(<$repr as $crate::layout::Value>::from_bits(bits))
            }

            #[inline]
            fn to_bits(self) -> u64 {
                u64::from(<$repr>::from(self))
            }
        }
        )*
    };
}

pub(crate) use {codes, entry, getter, setter, structure};
